#!/usr/bin/env bash
# pillow-jxl-plugin 1.3.8: the Exif box of a JPEG XL that it writes lacks the four bytes with which the box begins.
#
# Expected: ISO/IEC 18181-2 begins the content of an Exif box with the offset of the TIFF header as a number of four
# bytes, mostly zeros, as libjxl's description of JxlEncoderAddBox says.
# Seen: the content begins with the TIFF header, "MM\0*". Read as a number, that is an offset of 1.3 GB.
# Why: the plugin gives the EXIF to JxlEncoderAddBox as it is.
# It matters to whoever reads the box as specified: orientation, dates and descriptions are beyond the end of the file.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==12.3.0 pillow-jxl-plugin==1.3.8
cat > "$folder/check.py" <<'PYTHON'
import io

import pillow_jxl  # noqa: F401 (registers the format)
from PIL import Image

exif = Image.Exif()
exif[0x010E] = "A description"
data = io.BytesIO()
Image.new("RGB", (8, 8)).save(data, "JXL", exif=exif.tobytes(), use_container=True)
at = data.getvalue().index(b"Exif")
size = int.from_bytes(data.getvalue()[at - 4 : at], "big") - 8
content = data.getvalue()[at + 4 : at + 4 + size]
print(len(content), content[:12])
assert content[:4] in (b"II*\0", b"MM\0*")
assert int.from_bytes(content[:4], "big") > len(content)
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
