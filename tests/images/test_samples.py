from __future__ import annotations

from pathlib import Path

import pytest

from captioner.images import open_image
from captioner.images.find import find_images

FOLDER = Path(__file__).parents[2] / "data" / "samples"
SAMPLES = list(find_images([FOLDER]))


def test_no_sample_is_left_out() -> None:
    names = "astronaut bee bridge cat citrus coffee dogs mountains pagoda photographer rocket tulips"
    assert {path.stem for path in SAMPLES} >= set(names.split())


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_each_sample_opens_is_small_and_has_its_licence_written_down(path: Path) -> None:
    assert max(open_image(path).size) <= 800
    assert path.stat().st_size < 150_000
    (row,) = [line for line in (FOLDER / "README.md").read_text().splitlines() if f"| `{path.name}` |" in line]
    assert any(licence in row for licence in ("public domain", "CC0", "CC BY"))


def test_the_cat_lies_on_its_side_and_is_turned_upright() -> None:
    assert open_image(FOLDER / "cat.jpg").size == (451, 300)
