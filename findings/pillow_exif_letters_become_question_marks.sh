#!/usr/bin/env bash
# Pillow 12.3.0: an EXIF description in UTF-8 loses its letters beyond ASCII when its own getexif() is passed to save().
#
# Expected: what is read from one file and written into another is the same: a resize keeps the description.
# Seen: "A café beside a lake." becomes "A caf?? beside a lake.". XMP passed on in the same way keeps every byte.
# Why: text of EXIF is read as Latin-1, byte by byte, and written as ASCII with a question mark for what is none. Cameras
# and photo managers write UTF-8 there, as exiftool and exiv2 do; the bytes that were read are known, and are not kept.
# It matters to whoever resizes described photos with Pillow; Image.info["exif"], passed on as bytes, is not changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==12.3.0
cat > "$folder/check.py" <<'PYTHON'
import io
import struct
from PIL import Image

TEXT = "A café beside a lake.".encode()


def saved(**more):
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", **more)
    return file.getvalue()


value = TEXT + b"\0"
exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIII", 8, 1, 0x010E, 2, len(value), 26, 0) + value
original = Image.open(io.BytesIO(saved(exif=exif)))
passed_on, as_bytes = saved(exif=original.getexif()), saved(exif=original.info["exif"])
print("getexif() passed on:    ", "kept" if TEXT in passed_on else "changed")
print("info['exif'] passed on: ", "kept" if TEXT in as_bytes else "changed")
assert TEXT in as_bytes
assert b"A caf?? beside a lake." in passed_on
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
