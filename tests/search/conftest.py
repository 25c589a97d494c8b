from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from captioner.captioner import Captioner
from captioner.search.search import Gallery


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all tests keep features, so that equal images are encoded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(tmp_path: Path, images: list[Path]) -> Path:
    """A folder with four images."""
    (tmp_path / "photos").mkdir()
    for image in images[:4]:
        shutil.copy(image, tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def make_gallery(captioner: Captioner, cache: Path) -> Callable[..., Gallery]:
    """A gallery, of the small model if no other is named."""

    def make(paths: list[Path], *, model: Captioner = captioner, cache: Path = cache) -> Gallery:
        return Gallery(model, paths, cache=cache)

    return make
