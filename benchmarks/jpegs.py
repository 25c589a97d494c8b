"""Folders of different JPEGs, for the benchmarks that read folders."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

import captioner

SIZE = (640, 480)
SAMPLES = Path(__file__).resolve().parents[1] / "data" / "samples"


def make_images(
    folder: Path,
    count: int,
    *,
    source: str | None = None,
    distinct: int | None = None,
    size: tuple[int, int] = SIZE,
) -> None:
    """Make JPEGs of the images in a folder: another part, mirrored or not, brighter or darker.

    Args:
        folder: made; files that are there already stay as they are.
        count: how many.
        source: folder of images (default: the samples).
        distinct: how many differ to the eye (default: all); the others are copies with other bytes at the end.
        size: width and height.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = list(captioner.find_images([source or SAMPLES]))
    chance = np.random.default_rng(0)
    drawn: list[bytes] = []
    for number in range(count):
        if number < (distinct or count):
            data = _draw(sources[number % len(sources)], chance, size)
            if distinct is not None:
                drawn.append(data)
        else:
            # Behind the end of the image, where no reader of JPEGs looks.
            data = drawn[number % len(drawn)] + number.to_bytes(8, "big")
        path = folder / f"{number // 1000}" / f"{number}.jpg"  # several folders, as in life
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)


def _draw(source: Path, chance: np.random.Generator, size: tuple[int, int]) -> bytes:
    sample = captioner.open_image(source)
    share = chance.uniform(0.6, 1.0)
    width, height = (round(side * share) for side in sample.size)
    left, top = (int(chance.integers(0, room + 1)) for room in (sample.width - width, sample.height - height))
    image = sample.resize(size, box=(left, top, left + width, top + height))
    if chance.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    file = io.BytesIO()
    ImageEnhance.Brightness(image).enhance(chance.uniform(0.7, 1.3)).save(file, "JPEG", quality=90)
    return file.getvalue()
