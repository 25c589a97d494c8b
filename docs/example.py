"""Draws docs/example.png: all sample images, whole, with the captions that the shipped weights write.

python docs/example.py
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

import captioner

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
COLUMNS = 4
WIDTH, HEIGHT, GAP, TEXT = 208, 156, 16, 76


def main() -> None:
    """Caption and draw."""
    model = captioner.load()
    paths = sorted(captioner.find_images([SAMPLES]))
    rows = -(-len(paths) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (WIDTH + GAP) + GAP, rows * (HEIGHT + TEXT + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for place, (path, (caption,)) in enumerate(zip(paths, model.caption(paths), strict=True)):
        row, column = divmod(place, COLUMNS)
        left, top = GAP + column * (WIDTH + GAP), GAP + row * (HEIGHT + TEXT + GAP)
        sheet.paste(ImageOps.pad(captioner.open_image(path), (WIDTH, HEIGHT), color="#eeeeee"), (left, top))
        lines = "\n".join(textwrap.wrap(caption.text, width=27))
        draw.multiline_text((left, top + HEIGHT + 8), lines, fill="black", font=font)
    sheet.save(Path(__file__).with_name("example.png"), optimize=True)


if __name__ == "__main__":
    main()
