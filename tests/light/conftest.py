from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.light import installing

Run = Callable[..., subprocess.CompletedProcess[str]]

DOGS = "A brown dog is jumping over a wooden fence."
"""What the shipped weights write."""
SAID = {
    "astronaut.jpg": "a woman in an orange suit",
    "cat.jpg": "the face of a cat",
    "coffee.jpg": "a cup of coffee on a table",
    "dogs.jpg": "two dogs look out of a window",
}


@pytest.fixture(scope="session")
def light() -> dict[str, str]:
    """Environment of a process in which only what ``pip install captioner`` brings can be imported."""
    return installing.light_environment()


@pytest.fixture
def captioner(light: dict[str, str]) -> Run:
    """Runs ``captioner`` where only the light set is installed."""

    def call(*arguments: object, given: str = "") -> subprocess.CompletedProcess[str]:
        return installing.run("-m", "captioner", *arguments, environment=light, given=given)

    return call


@pytest.fixture(scope="session")
def photos(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four images; not to be changed."""
    folder = tmp_path_factory.mktemp("photos")
    for image in images:
        if image.name in SAID:
            shutil.copy(image, folder)
    return folder


def write_table(folder: Path, rows: Iterable[tuple[str, str]]) -> str:
    """A data set of captioned images, as ``--dataset`` takes it; the images lie in its folder."""
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption", "split"), *((*row, "val") for row in rows)])
    return f"table:{folder}"


@pytest.fixture(scope="session")
def table(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The four images with captions, as a data set; one caption is the model's, so that four words match anywhere."""
    folder = tmp_path_factory.mktemp("table")
    for image in photos.iterdir():
        shutil.copy(image, folder)
    return write_table(folder, [*SAID.items(), *((name, "a thing on a table") for name in SAID), ("dogs.jpg", DOGS)])
