"""``kill -9`` while captions are written into images or XMP: no image is ever damaged, and in the end all is done."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from captioner.bulk.options import FolderOptions
from captioner.captioner import Captioner
from captioner.embed.folder import caption_inside
from tests.bulk.folders import contents, in_a_child, make_folder, model_of

WAYS: dict[str, dict[str, Any]] = {
    "in place": {"embed": True, "in_place": True},
    "copies": {"embed": True},
    "xmp": {"format": "xmp"},
}
KILLS = 3


def caption(captioner: Captioner, place: Path, way: str) -> None:
    options = {"output": str(place / "out")} if way == "copies" else {}
    settings = FolderOptions(workers=0, batch_size=2, **WAYS[way], **options)
    caption_inside([str(place / "images")], settings, model_of(captioner))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_is_killed_damages_nothing_and_ends_the_same(captioner: Captioner, tmp_path: Path, way: str) -> None:
    originals = make_folder(tmp_path / "originals", 6, broken=(3,))
    before = {f"images/{path.name}": path.read_bytes() for path in originals.iterdir()}

    def run(place: Path, seconds: float | None = None, *, stopped: bool = False) -> bool:
        return in_a_child(lambda: caption(captioner, place, way), seconds, stopped=stopped)

    def begin(name: str) -> Path:
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        shutil.copytree(originals, tmp_path / name / "images")
        return tmp_path / name

    place = begin("undisturbed")
    start = time.monotonic()
    assert not run(place)
    duration = time.monotonic() - start
    expected = contents(place)
    changed = [name for name, data in before.items() if expected[name] != data]
    assert len(changed) == (5 if way == "in place" else 0)
    assert len(expected) == 6 + (0 if way == "in place" else 5)
    chance, kills = random.Random(way), 0
    while kills < KILLS:
        place = begin("killed")
        for _ in range(chance.randint(1, 3)):
            kills += run(place, chance.uniform(0, duration))
            for name, data in before.items():
                assert (place / name).read_bytes() in (data, expected[name])
        run(place)
        assert contents(place) == expected
    place = begin("stopped")
    run(place, duration / 2, stopped=True)
    assert contents(place) == expected
