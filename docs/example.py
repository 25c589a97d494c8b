"""Draws docs/example.png: sample photographs with the captions that the shipped weights write.

python docs/example.py
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

import captioner

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
NAMES = ("dogs.jpg", "coffee.jpg", "mountains.jpg", "cat.jpg")
SIDE, GAP, TEXT = 260, 16, 76


def main() -> None:
    """Caption and draw."""
    model = captioner.load()
    paths = [SAMPLES / name for name in NAMES]
    sheet = Image.new("RGB", (len(paths) * (SIDE + GAP) + GAP, SIDE + TEXT + 2 * GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=17)
    for place, (path, (caption,)) in enumerate(zip(paths, model.caption(paths), strict=True)):
        left = GAP + place * (SIDE + GAP)
        with Image.open(path) as picture:
            square = ImageOps.fit(ImageOps.exif_transpose(picture).convert("RGB"), (SIDE, SIDE))
        sheet.paste(square, (left, GAP))
        lines = "\n".join(textwrap.wrap(caption.text, width=30))
        draw.multiline_text((left, SIDE + GAP + 8), lines, fill="black", font=font)
    sheet.save(Path(__file__).with_name("example.png"), optimize=True)


if __name__ == "__main__":
    main()
