from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.errors import ImageError
from captioner.images import Pixels, Preprocessing, Preprocessings

HALF = (0.5, 0.5, 0.5)
SMALL = Preprocessing(24, mean=HALF, std=HALF)
LARGE = Preprocessing(40, resize="crop", resize_size=44, mean=HALF, std=HALF)
BOTH = Preprocessings((SMALL, LARGE))


class Pipe(io.BytesIO):
    """A source that can be read once."""

    def seekable(self) -> bool:
        return False

    def seek(self, *arguments: int) -> int:
        raise OSError("cannot go back")

    def tell(self) -> int:
        raise OSError("cannot tell")


def parts(pixels: Pixels) -> list[Pixels]:
    small, large = np.split(pixels, [3 * 24 * 24])
    return [small.reshape(SMALL.shape), large.reshape(LARGE.shape)]


def test_each_member_gets_the_square_it_would_make_alone(images: list[Path]) -> None:
    path = images[0]
    content = path.read_bytes()
    for source in (path, str(path), content, io.BytesIO(content), Pipe(content)):
        found = BOTH.load(source)
        assert found.shape == BOTH.shape == (3 * (24 * 24 + 40 * 40),)
        small, large = parts(found)
        assert np.array_equal(small, SMALL.load(path))
        assert np.array_equal(large, LARGE.load(path))
    with Image.open(path) as image:
        found = BOTH.pixels(image)
        assert all(map(np.array_equal, parts(found), (SMALL.pixels(image), LARGE.pixels(image))))


def test_errors_are_those_of_opening(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.jpg: not an image"):
        BOTH.load(tmp_path / "broken.jpg")
