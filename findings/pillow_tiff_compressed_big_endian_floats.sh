#!/usr/bin/env bash
# Pillow 12.3.0: a big-endian TIFF of 32-bit floats or integers loses its values once it is compressed.
#
# Expected: the same values, however the file is compressed; tifffile, which wrote it, reads them.
# Seen: uncompressed both agree. With deflate Pillow gives floats near 0 (1.0 becomes 4.6e-41), and 65535 becomes -65536.
# Why: libtiff gives numbers in the order of the processor; Pillow knows that for 16 bits, but unpacks 32 bits
# (raw modes F;32BF and I;32BS) in the order of the file, and so swaps them a second time.
# It matters to whoever reads scientific images written on or for big-endian systems: no error, only a black image.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==12.3.0 numpy==2.4.6 tifffile==2026.3.3
cat > "$folder/check.py" <<'PYTHON'
import io

import numpy as np
import tifffile
from PIL import Image


def through_pillow(values, compression):
    file = io.BytesIO()
    tifffile.imwrite(file, values, byteorder=">", compression=compression)
    assert np.array_equal(tifffile.imread(io.BytesIO(file.getvalue())), values)
    return np.asarray(Image.open(file))


floats, integers = np.array([[0, 0.5, 1]], np.float32), np.array([[0, 255, 65535]], np.int32)
for values in (floats, integers):
    for compression in (None, "zlib"):
        print(values.dtype, compression, through_pillow(values, compression))
assert np.array_equal(through_pillow(floats, None), floats)
assert np.array_equal(through_pillow(integers, None), integers)
assert through_pillow(floats, "zlib").max() < 1e-38
assert through_pillow(integers, "zlib")[0, 2] == -65536
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
