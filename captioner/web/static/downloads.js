// Downloads of the captions of many images. They are made here, of what the gallery shows, so that they have each edit. What
// it shows is kept when the page is left, for when it is loaded again, until the browser's tab is closed.
(() => {
  const LONGEST_CAPTION = 1000; // characters
  const encoder = new TextEncoder();

  const oneLine = (text) => text.slice(0, LONGEST_CAPTION).replace(/\s+/g, " ").replace(/\p{C}/gu, "").trim();

  const written = (field) => field.dataset.written ?? field.defaultValue; // by the model

  function shown() {
    return [...document.querySelectorAll("#gallery [data-image]")].map((shot) => {
      const { image, error, logProb } = shot.dataset;
      if (error !== undefined) return { image, error };
      const field = shot.querySelector("textarea");
      const caption = oneLine(field.value);
      // After an edit the number would be that of another sentence.
      const rest = caption === written(field) ? { log_prob: Number(logProb) } : { edited: true };
      return { image, caption, ...rest };
    });
  }

  // A name without its extension. Names of visitors may be anything.
  const stem = (name) => name.replace(/(?<=[^/])\.[^./]*$/, "");

  // As `captioner train` reads them.
  function csv(captioned) {
    const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const rows = [["image", "caption"], ...captioned.map(({ image, caption }) => [image, caption])];
    return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
  }

  // Ids are the numbers in the names if all names are COCO's, or else count from 1.
  function coco(captioned) {
    const found = captioned.map(({ image }) => /^(?:COCO_\w+_)?0*(\d{1,12})$/.exec(stem(image).split("/").pop()));
    const named = new Set(found.map((match) => match?.[1])).size === found.length && found.every(Boolean);
    const records = captioned.map(({ image, caption }, place) => ({
      image_id: named ? Number(found[place][1]) : place + 1,
      caption,
      file_name: image,
    }));
    return `${JSON.stringify(records, null, 1)}\n`;
  }

  // dog.txt for dog.jpg; of two with the same name the second gets a number.
  function sidecars(captioned) {
    const files = new Map();
    for (const { image, caption } of captioned) {
      let name = `${stem(image)}.txt`;
      for (let number = 2; files.has(name); number += 1) name = `${stem(image)} (${number}).txt`;
      files.set(name, `${caption}\n`);
    }
    return zip(files);
  }

  function crc32(bytes) {
    let crc = -1;
    for (const byte of bytes) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
  }

  // Little-endian numbers: [size in bytes, value].
  function packed(...numbers) {
    const view = new DataView(new ArrayBuffer(numbers.reduce((sum, [size]) => sum + size, 0)));
    let place = 0;
    for (const [size, value] of numbers) {
      if (size === 2) view.setUint16(place, value, true);
      else view.setUint32(place, value, true);
      place += size;
    }
    return new Uint8Array(view.buffer);
  }

  // A zip archive of texts, not compressed; names are UTF-8 (flag 0x800), dates are 1980-01-01 (0x21).
  function zip(files) {
    const parts = [], directory = [];
    let offset = 0;
    for (const [name, text] of files) {
      const path = encoder.encode(name), data = encoder.encode(text);
      const about = [[2, 20], [2, 0x800], [2, 0], [2, 0], [2, 0x21], [4, crc32(data)], [4, data.length], [4, data.length]];
      const local = [packed([4, 0x04034b50], ...about, [2, path.length], [2, 0]), path, data];
      const rest = [[2, path.length], [2, 0], [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]];
      directory.push(packed([4, 0x02014b50], [2, 20], ...about, ...rest), path);
      parts.push(...local);
      offset += local.reduce((sum, part) => sum + part.length, 0);
    }
    const size = directory.reduce((sum, part) => sum + part.length, 0);
    const end = [[4, 0x06054b50], [2, 0], [2, 0], [2, files.size], [2, files.size], [4, size], [4, offset], [2, 0]];
    return new Blob([...parts, ...directory, packed(...end)]);
  }

  const captioned = (items) => items.filter(({ error }) => error === undefined);
  const formats = {
    CSV: ["captions.csv", "text/csv", (items) => csv(captioned(items))],
    "JSON Lines": ["captions.jsonl", "application/jsonl", (items) => items.map((item) => `${JSON.stringify(item)}\n`).join("")],
    "COCO JSON": ["captions.json", "application/json", (items) => coco(captioned(items))],
    "Text files (zip)": ["captions.zip", "application/zip", (items) => sidecars(captioned(items))],
  };

  function keep() {
    const gallery = document.querySelector("#gallery")?.cloneNode(true);
    if (!gallery) return; // its tab was not opened
    for (const field of gallery.querySelectorAll("textarea")) {
      field.dataset.written = written(field);
      field.textContent = field.value;
    }
    const ended = document.querySelector("#progress .progress:has(.verdict)")?.outerHTML ?? "";
    const shots = () => [...gallery.querySelectorAll("[data-image]")].map((shot) => shot.outerHTML).join("");
    const store = () => sessionStorage.setItem("album", JSON.stringify([ended, shots()]));
    try {
      store();
    } catch {
      for (const image of gallery.querySelectorAll("img")) image.remove(); // all together are too large
      store();
    }
  }

  window.addEventListener("pagehide", keep);

  document.addEventListener("click", (event) => {
    const format = formats[event.target.closest?.("#downloads button")?.textContent.trim()];
    if (!format) return;
    const [name, type, write] = format;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([write(shown())], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
})();
