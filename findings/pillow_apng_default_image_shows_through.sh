#!/usr/bin/env bash
# Pillow 12.3.0: the first frame of an APNG is drawn over the default image, which is not part of the animation.
#
# Expected: where an APNG has a default image outside its animation, the first frame is drawn over nothing: the PNG
# specification begins an animation with a canvas of transparent black.
# Seen: Image.seek(1) gives the frame with the default image around it, 14 of 16 pixels here.
# Why: seek() keeps the image that is loaded as what the next frame is drawn over, whether it is a frame or not.
# It matters to whoever takes frames out of stickers and of files with "please update your browser" as default image.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==12.3.0
cat > "$folder/check.py" <<'PYTHON'
import io
import struct
import zlib

from PIL import Image


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


still = io.BytesIO()
Image.new("RGBA", (4, 4), "magenta").save(still, "PNG")
still = still.getvalue()
rows = zlib.compress(b"\0" + bytes((0, 0, 255, 255)) * 2)  # 2 x 1 blue pixels
frame = chunk(b"fcTL", struct.pack(">5I2H2B", 0, 2, 1, 0, 0, 1, 10, 0, 0)) + chunk(b"fdAT", struct.pack(">I", 1) + rows)
image = Image.open(io.BytesIO(still[:33] + chunk(b"acTL", struct.pack(">II", 1, 0)) + still[33:-12] + frame + still[-12:]))
assert (image.default_image, image.n_frames) == (True, 2)
image.seek(1)
shown = image.convert("RGBA").tobytes()
pixels = [tuple(shown[at : at + 4]) for at in range(0, len(shown), 4)]
print({pixel: pixels.count(pixel) for pixel in set(pixels)})
assert pixels.count((0, 0, 255, 255)) == 2
assert pixels.count((255, 0, 255, 255)) == 14
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
