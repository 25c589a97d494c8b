// Copying, announcing results to screen readers, pasting an image anywhere on the page, tabs in the address, and receiving
// every answer.
(() => {
  // Gradio ends the stream of a page's answers when none is due, and misses the answer to what the page asks for at that moment
  // (gradio-app/gradio#7921). So its stream never ends here: behind it, another one is opened whenever an answer is due.
  const ask = window.fetch;
  const due = new Set(); // requests without an answer
  const early = new Set(); // answers that were faster than the reply that names their request
  let wake = () => {};

  function passOn(message, controller) {
    const { msg, event_id: event } = JSON.parse(message.replace(/^data: /, ""));
    if (msg === "close_stream") return;
    if (msg === "process_completed" && !due.delete(event)) early.add(event);
    controller.enqueue(new TextEncoder().encode(`${message}\n\n`));
  }

  async function readOn(reply, controller) {
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const messages = (text + part.value).split("\n\n");
      text = messages.pop();
      for (const message of messages) passOn(message, controller);
    }
  }

  async function endless(request, options) {
    const first = await ask(request, options);
    if (!first.ok) return first;
    const body = new ReadableStream({
      async start(controller) {
        try {
          for (let reply = first; ; reply = await ask(request, options)) {
            await readOn(reply, controller);
            while (!due.size) await new Promise((resolve) => (wake = resolve));
          }
        } catch (error) {
          controller.error(error);
        }
      },
    });
    return new Response(body, { headers: first.headers });
  }

  window.fetch = async (request, options) => {
    const path = new URL(request.url ?? request, location.href).pathname;
    if (path.endsWith("/queue/data")) return endless(request, options);
    const reply = await ask(request, options);
    if (path.endsWith("/queue/join") && reply.ok) {
      const { event_id: event } = await reply.clone().json();
      if (!early.delete(event)) due.add(event);
      wake();
    }
    return reply;
  };

  const announced = new WeakMap();

  function liveRegion() {
    let region = document.getElementById("announcer");
    if (!region) {
      region = document.createElement("div");
      region.id = "announcer";
      region.className = "unseen";
      region.setAttribute("role", "status");
      region.setAttribute("aria-live", "polite");
      document.body.append(region);
    }
    return region;
  }

  function announce() {
    for (const element of document.querySelectorAll("[data-announce]")) {
      const text = element.dataset.announce;
      if (announced.get(element) !== text) {
        announced.set(element, text);
        liveRegion().textContent = text;
      }
    }
  }

  // Repair what hinders those who use Gradio's components with a screen reader, by voice or without a mouse.
  function mend() {
    for (const inner of document.querySelectorAll("button.icon-button button.upload-container")) {
      const outer = inner.closest("button.icon-button"); // a button in a button: only the inner one acts
      outer.removeAttribute("aria-label");
      outer.setAttribute("role", "group");
      outer.tabIndex = -1;
      outer.title = inner.title = "Add files";
      inner.setAttribute("aria-label", "Add files");
    }
    for (const zone of document.querySelectorAll("button.upload-container[aria-label]")) {
      const text = zone.innerText.replace(/\s+/g, " ").trim(); // the name must be the text that is shown
      if (text && zone.getAttribute("aria-label") !== text) zone.setAttribute("aria-label", text);
    }
    for (const header of document.querySelectorAll(".toast-header[role=button]")) {
      header.removeAttribute("role"); // the button that closes the message is inside
      header.removeAttribute("tabindex");
    }
    for (const table of document.querySelectorAll(".file-preview:not(:has(thead)):has(td)")) {
      const heads = ["File", "Size", "Remove"].slice(0, table.rows[0].cells.length).map((name) => `<th scope="col">${name}</th>`);
      table.insertAdjacentHTML("afterbegin", `<thead><tr>${heads.join("")}</tr></thead>`);
    }
    for (const wide of document.querySelectorAll("#card table, #card pre")) wide.tabIndex = 0;
    awaitCamera();
  }

  // Gradio ignores a press before the camera has sent its first frame, without saying so.
  function awaitCamera() {
    const button = document.querySelector('#picture button[aria-label="capture photo"]');
    if (button) button.disabled = !document.querySelector("#picture video")?.videoWidth;
  }

  async function copy(button) {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Over plain HTTP from another machine there is no clipboard object.
      const field = document.createElement("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
      button.focus();
    }
    const label = button.textContent;
    button.textContent = "Copied";
    liveRegion().textContent = "Copied";
    setTimeout(() => (button.textContent = label), 1500);
  }

  // Hand an image over as if it had been chosen in the file dialogue.
  function give(file) {
    const input = document.querySelector("#picture input[type=file]");
    const files = new DataTransfer();
    files.items.add(file);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  function imageIn(transfer) {
    return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/"));
  }

  document.addEventListener("paste", (event) => {
    const file = imageIn(event.clipboardData);
    if (!file || !document.querySelector("#picture")) return;
    event.preventDefault();
    give(file);
  });
  // Gradio accepts a drop only in its empty frame.
  document.addEventListener("dragover", (event) => {
    if (event.target.closest?.("#picture .image-container")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    const shown = event.target.closest?.("#picture") && !event.target.closest("button.upload-container");
    const file = imageIn(event.dataTransfer);
    if (!shown || !file) return;
    event.preventDefault();
    give(file);
  });
  document.addEventListener("loadeddata", awaitCamera, true); // of the video; such events do not bubble

  // Show where the model looked at a word, while the word is pointed at or has the focus, or until another is chosen.
  function lookAt(button, chosen) {
    const place = button.closest(".decisions");
    const shade = place?.querySelector(".shade");
    if (!shade) return;
    if (chosen) {
      const again = button.getAttribute("aria-pressed") === "true";
      for (const other of place.querySelectorAll(".look-at")) other.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", String(!again));
    }
    shade.src = button.dataset.shade;
    shade.hidden = false;
  }

  function lookAway(button) {
    const place = button.closest(".decisions");
    const chosen = place?.querySelector('.look-at[aria-pressed="true"]');
    if (chosen) lookAt(chosen, false);
    else if (place) place.querySelector(".shade").hidden = true;
  }

  for (const [event, act] of [
    ["mouseover", (button) => lookAt(button, false)],
    ["focusin", (button) => lookAt(button, false)],
    ["click", (button) => lookAt(button, true)],
    ["mouseout", lookAway],
    ["focusout", lookAway],
  ]) {
    document.addEventListener(event, (happened) => {
      const button = happened.target.closest?.(".look-at");
      if (button) act(button);
    });
  }

  // The open tab is in the address and in the title, so that Back, Forward and links work.
  const allTabs = () => [...document.querySelectorAll("[role=tab]")];
  const addressed = () => allTabs().find((tab) => location.hash === `#${tab.dataset.tabId}`) ?? allTabs()[0];
  let arriving = true; // at the tab that the address names

  function followTab() {
    const open = allTabs().find((tab) => tab.getAttribute("aria-selected") === "true");
    if (!open) return;
    if (open === addressed()) arriving = false;
    else if (arriving) {
      addressed().click();
      arriving = true; // until it is open
    } else history.pushState(null, "", open === allTabs()[0] ? location.pathname + location.search : `#${open.dataset.tabId}`);
    const title = open === allTabs()[0] ? "captioner" : `${open.textContent.trim()} - captioner`;
    if (document.title !== title) document.title = title;
  }

  // Somebody who is faster than the page goes where they want.
  document.addEventListener("click", (event) => {
    if (event.target.closest?.("[role=tab]")) arriving = false;
  }, true);

  window.addEventListener("hashchange", () => {
    arriving = true;
    followTab();
  });

  // As in all lists of tabs, the arrow keys go from one to the next.
  document.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const tab = event.target.closest?.("[role=tab]");
    if (!step || !tab) return;
    const tabs = allTabs();
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (button && button.textContent !== "Copied") copy(button);
  });
  function start() {
    liveRegion();
    const look = () => (announce(), mend(), followTab());
    new MutationObserver(look).observe(document.body, {
      attributeFilter: ["data-announce", "aria-selected"],
      childList: true,
      subtree: true,
    });
    look();
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
