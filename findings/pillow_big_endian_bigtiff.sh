#!/usr/bin/env bash
# Pillow 12.3.0: a BigTIFF with the high bytes first cannot be opened.
#
# Expected: the image, as with the low bytes first; tifffile, which wrote it, libtiff and ImageMagick read it.
# Seen: "cannot identify image file", though Pillow lists the file's first bytes (MM, 0, 43) among those that it opens.
# Why: the plugin takes a file for a BigTIFF where the third byte is 43. That is the low byte of the number in one order
# of the bytes, and the high one, 0, in the other; so the header is read as that of an ordinary TIFF.
# It matters to whoever opens large scans and microscope images: the message says that the file is no image.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==12.3.0 numpy==2.4.6 tifffile==2026.3.3
cat > "$folder/check.py" <<'PYTHON'
import io

import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

values = np.arange(256, dtype=np.uint8).reshape(16, 16)
for order in "<>":
    file = io.BytesIO()
    tifffile.imwrite(file, values, bigtiff=True, byteorder=order)
    assert np.array_equal(tifffile.imread(io.BytesIO(file.getvalue())), values)
    try:
        assert np.array_equal(np.asarray(Image.open(file)), values)
        print(order, "opened")
        assert order == "<"
    except UnidentifiedImageError as error:
        print(order, error)
        assert order == ">"
        assert file.getvalue()[:4] in TiffImagePlugin.PREFIXES
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
