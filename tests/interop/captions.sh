#!/usr/bin/env bash
# Embeds a caption in 20 kinds of files and reads it with nine programs. Prints the table of docs/folder.md:
# C caption found, A alt text found, R both still there after the program has made the image smaller.
#
# Not part of the tests; needs captioner and Pillow on the path (python), and
#   apt-get install libimage-exiftool-perl exiv2 gir1.2-gexiv2-0.10 python3-gi imagemagick libvips-tools nodejs npm
# ImageMagick's command may be named with CONVERT=... (default: convert).
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CAPTION="${CAPTION:-A boat beside a lake.}" PYTHONPATH="$here" CONVERT="${CONVERT:-convert}"
cd "$work"
mkdir plain files small
npm install --silent --no-audit --no-fund exifr@7.1.3 exifreader@4.31.1 sharp@0.34.3 >/dev/null 2>&1

python - <<'PY'
import io, os, subprocess
from pathlib import Path
from PIL import Image, ImageDraw
from captioner.embed.embedding import embed

def picture(mode="RGB", turn=0):
    image = Image.linear_gradient("L").resize((240, 160)).rotate(turn).convert("RGB")
    ImageDraw.Draw(image).ellipse((60, 40, 160, 130), fill=(200, 80, 40))
    return image.convert(mode)

def save(name, mode="RGB", **more):
    image = picture(mode) if isinstance(mode, str) else mode
    image.save(f"plain/{name}", **more)

exif = Image.Exif()
exif[0x010F], exif[0x0112] = "Maker", 1
words = Image.Exif()
words[0x010E] = "OLYMPUS DIGITAL CAMERA"
xmp = (b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
       b'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>')
save("JPEG.jpg")
save("JPEG, progressive.jpg", progressive=True)
save("JPEG, grey.jpg", "L")
save("JPEG, CMYK.jpg", "CMYK")
save("JPEG with EXIF.jpg", exif=exif)
save("JPEG with XMP.jpg", xmp=xmp)
save("JPEG with words of a camera.jpg", exif=words)
save("JPEG with IPTC.jpg")
save("JPEG, --embed-iptc.jpg")
save("JPEG, several images (MPO).jpg", format="MPO", save_all=True, append_images=[picture(turn=90)])
save("PNG.png")
save("PNG, transparent.png", "RGBA")
save("PNG, palette.png", "P")
save("PNG, 16 bits.png", Image.frombytes("I;16", (240, 160), bytes(240 * 160 * 2)))
save("PNG, animated.png", save_all=True, append_images=[picture(turn=90)])
save("PNG with profiles of ImageMagick.jpg", exif=exif, xmp=xmp)
save("WebP.webp")
save("WebP, lossless, transparent.webp", "RGBA", lossless=True)
save("WebP, animated.webp", save_all=True, append_images=[picture(turn=90)])
save("WebP with EXIF and XMP.webp", exif=exif, xmp=xmp)
subprocess.run(["exiftool", "-q", "-overwrite_original", "-IPTC:Keywords=lake", "plain/JPEG with IPTC.jpg"], check=True)
old = "plain/PNG with profiles of ImageMagick.jpg"
subprocess.run([os.environ["CONVERT"], old, old.replace(".jpg", ".png")], check=True)
Path(old).unlink()
for file in Path("plain").iterdir():
    data = embed(file.read_bytes(), os.environ["CAPTION"], file.name, iptc="--embed-iptc" in file.name)
    Path("files", file.name).write_bytes(data)
PY

cat > read.mjs <<'JS'
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import exifr from "exifr";
import ExifReader from "exifreader";
import sharp from "sharp";
const caption = process.env.CAPTION, said = (value) => JSON.stringify(value ?? "").includes(caption);
const say = (program, name, found) => console.log([program, name, found].join("\t"));
mkdirSync("small/sharp");
for (const name of readdirSync("files")) {
  const file = `files/${name}`;
  let all = {};
  try { all = (await exifr.parse(file, true)) ?? {}; } catch {}
  const bytes = (text) => (text ? Buffer.from(text, "latin1").toString("utf8") : text);  // exifr reads EXIF as Latin-1
  say("exifr", name, (said(bytes(all.ImageDescription)) || said(all.ImageDescription) || said(all.description) ? "C" : "") + (said(all.AltTextAccessibility) ? "A" : ""));
  let tags = {};
  try { tags = ExifReader.load(readFileSync(file)); } catch {}
  say("exifreader", name, ([tags.ImageDescription, tags.description].some((tag) => said(tag?.description) || said(tag?.value)) ? "C" : "") + (said(tags.AltTextAccessibility) ? "A" : ""));
  const { exif, xmp } = await sharp(file).metadata(), held = String(xmp ?? "");
  say("sharp", name, (held.includes(caption) || String(exif ?? "").includes(caption) ? "C" : "") + (held.includes("AltText") ? "A" : ""));
  await sharp(file, { animated: name.includes("animated") && name.endsWith("webp") }).resize(100).keepMetadata().toFile(`small/sharp/${name}`);
}
JS
node read.mjs > found.tsv

cat > gexiv2.py <<'PY'
import os, gi
gi.require_version("GExiv2", "0.10")
from gi.repository import GExiv2
for name in os.listdir("files"):
    data = GExiv2.Metadata()
    data.open_path(f"files/{name}")
    alt = data.try_get_tag_string if hasattr(data, "try_get_tag_string") else data.get_tag_string
    found = "C" if data.get_comment() == os.environ["CAPTION"] else ""
    print("GExiv2", name, found + ("A" if os.environ["CAPTION"] in (alt("Xmp.iptc.AltTextAccessibility") or "") else ""), sep="\t")
PY
/usr/bin/python3 gexiv2.py >> found.tsv

mkdir small/ImageMagick small/libvips small/Pillow
for file in files/*; do
  name=$(basename "$file")
  texts=$(exiv2 -q -PEIXkt "$file" 2>/dev/null || true)
  letters=
  grep -q "description.*$CAPTION" <<< "$(grep -i 'Xmp.dc\|Exif.Image' <<< "$texts")" && letters+=C
  grep -q "AltTextAccessibility.*$CAPTION" <<< "$texts" && letters+=A
  printf 'exiv2\t%s\t%s\n' "$name" "$letters" >> found.tsv
  frame=$([[ $name == *animated*webp ]] && echo "" || echo "[0]")
  letters=
  "$CONVERT" "$file[0]" -format '%[EXIF:ImageDescription] ' info: 2>/dev/null | grep -qF "$CAPTION" && letters+=C
  "$CONVERT" "$file[0]" xmp:- 2>/dev/null | grep -q AltTextAccessibility && letters+=A
  printf 'ImageMagick\t%s\t%s\n' "$name" "$letters" >> found.tsv
  "$CONVERT" "$file$frame" -resize 50% "small/ImageMagick/$name" 2>/dev/null || true
  letters=
  vipsheader -f exif-ifd0-ImageDescription "$file" 2>/dev/null | grep -q "$CAPTION" && letters+=C
  vipsheader -f xmp-data "$file" 2>/dev/null | base64 -d 2>/dev/null | grep -q AltTextAccessibility && letters+=A
  printf 'libvips\t%s\t%s\n' "$name" "$letters" >> found.tsv
  vipsthumbnail "$file" --size 100 -o "$work/small/libvips/$name" 2>/dev/null || true
done

python - <<'PY' >> found.tsv
import os
from pathlib import Path
from PIL import Image
for file in Path("files").iterdir():
    with Image.open(file) as image:
        exif, xmp = image.getexif(), image.info.get("xmp", b"")
        text = exif.get(0x010E, "").encode("latin-1", "replace").decode("utf-8", "replace")
        print("Pillow", file.name, "C" * (text == os.environ["CAPTION"]) + "A" * (b"AltTextAccessibility" in xmp), sep="\t")
        if "animated" not in file.name:
            small = image.resize((120, 80))
            small.save(Path("small/Pillow", file.name), exif=exif, xmp=xmp) if xmp else small.save(Path("small/Pillow", file.name), exif=exif)
PY

exiftool -q -json -MWG:Description -XMP-iptcCore:AltTextAccessibility -use MWG files > exiftool.json
exiftool -q -r -json -MWG:Description -XMP-iptcCore:AltTextAccessibility -use MWG small > small.json || true
python - <<'PY'
import json, os
from collections import defaultdict
from pathlib import Path
caption, found = os.environ["CAPTION"], defaultdict(str)
for line in Path("found.tsv").read_text().splitlines():
    program, name, letters = line.split("\t")
    found[name, program] += letters
for record in json.loads(Path("exiftool.json").read_text()):
    name = Path(record["SourceFile"]).name
    found[name, "exiftool"] = "C" * (record.get("Description") == caption) + "A" * (record.get("AltTextAccessibility") == caption)
for record in json.loads(Path("small.json").read_text()):
    path = Path(record["SourceFile"])
    if record.get("Description") == caption and record.get("AltTextAccessibility") == caption:
        found[path.name, path.parent.name] += "R"
programs = ["exiftool", "exiv2", "GExiv2", "exifr", "exifreader", "sharp", "ImageMagick", "libvips", "Pillow"]
print("| file | " + " | ".join(programs) + " |")
print("|---" * (len(programs) + 1) + "|")
for name in sorted({name for name, _ in found}):
    print(f"| {Path(name).stem} | " + " | ".join(found[name, program] or "-" for program in programs) + " |")
PY
