"""``kill -9`` at any moment, then the same command again: the same bytes as if nothing had happened."""

from __future__ import annotations

import os
import random
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

# Imported here, so that a process that is forked does not begin with it.
from captioner.captioner import Captioner
from captioner.errors import OutputError
from tests.bulk.folders import caption, contents, in_a_child, make_folder, save_image

# Runs that are killed; 62 in all.
KILLS = {"jsonl": 16, "csv": 12, "text": 8, "coco": 12, "sidecar": 8, "append": 6}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty-eight images with COCO's names, of which four are broken and three are equal."""
    folder = tmp_path / "pictures"
    for number in range(24):
        save_image(folder / f"{number:012}.png", 5 if number in (9, 17) else number)
    for number, path in enumerate(make_folder(tmp_path / "others", 4, broken=(0, 1, 2, 3)).iterdir()):
        path.rename(folder / f"{7 * number + 30:012}.png")
    return folder


class Place:
    """A folder of its own in which one command is given again and again.

    Args:
        begun: half of the images are captioned already, every second one.
    """

    def __init__(self, folder: Path, images: Path, kind: str, *, begun: bool = False) -> None:
        self.folder = folder
        self.options: dict[str, Any] = {"format": kind, "batch_size": 2}
        self.images = images
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if kind in ("sidecar", "append"):
            self.images = folder / "pictures"
            shutil.copytree(images, self.images, copy_function=os.link)
            self.options["format"] = "sidecar"
            if kind == "append":  # to texts of which every second is empty
                self.options["if_exists"] = "append"
                for number in range(24):
                    (self.images / f"{number:012}.txt").write_text("by hand" * (number % 2))
        else:
            self.options["output"] = str(folder / "captions")
        self.begun = sorted(self.images.glob("*.png"))[::2] if begun else []

    def begin(self, captioner: Captioner) -> None:
        if self.begun:
            in_a_child(lambda: caption(captioner, *self.begun, **self.options))

    def run(self, captioner: Captioner, seconds: float | None) -> bool:
        return in_a_child(lambda: caption(captioner, self.images, **self.options), seconds)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KILLS)
def test_a_run_that_is_killed_and_begun_again_ends_with_the_same_bytes(
    captioner: Captioner, folder: Path, tmp_path: Path, kind: str
) -> None:
    undisturbed = Place(tmp_path / "undisturbed", folder, kind)
    start = time.monotonic()
    undisturbed.run(captioner, None)
    duration = time.monotonic() - start
    expected = contents(undisturbed.folder)
    assert len(expected) == (28 + 24 if kind in ("sidecar", "append") else 2)
    chance = random.Random(kind)
    kills = 0
    while kills < KILLS[kind]:
        begun = chance.random() < 0.5
        place = Place(tmp_path / "killed", folder, kind, begun=begun)
        place.begin(captioner)
        for _ in range(chance.randint(1, 3)):
            if not place.run(captioner, chance.uniform(0, duration / 2 if begun else duration)):
                break  # it was faster
            kills += 1
        place.run(captioner, None)
        assert contents(place.folder) == expected


@pytest.mark.slow
def test_overwriting_that_is_killed_goes_on_or_leaves_the_old_file(
    captioner: Captioner, folder: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "killed", folder, "jsonl")
    place.run(captioner, None)
    output, old = tmp_path / "killed" / "captions", contents(place.folder)
    place.options["prepend"] = "photo of"
    fresh = Place(tmp_path / "fresh", folder, "jsonl")
    fresh.options["prepend"] = "photo of"
    start = time.monotonic()
    fresh.run(captioner, None)
    duration = time.monotonic() - start
    chance = random.Random(1)
    for _ in range(5):
        place.options["overwrite"] = True
        place.run(captioner, chance.uniform(0, duration))
        place.options["overwrite"] = False
        if contents(place.folder) == old:  # killed before anything was begun, or before anything was written
            with suppress(OutputError):
                caption(captioner, folder, **place.options)
        else:
            caption(captioner, folder, **place.options)
        if contents(place.folder) == old:
            continue
        assert contents(place.folder) == contents(fresh.folder)
        assert output.read_text().count("photo of") == 24
        Place(tmp_path / "killed", folder, "jsonl").run(captioner, None)
        assert contents(place.folder) == old
