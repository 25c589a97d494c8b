from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from captioner.checkpoint import Checkpoint
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
def make_gallery(checkpoint: Checkpoint, cache: Path) -> Callable[..., Gallery]:
    """A gallery of the small model, in float32 on the CPU."""

    def make(paths: list[Path], **changes: object) -> Gallery:
        values: dict[str, object] = {"cache": cache, "device": "cpu", "precision": "fp32"} | changes
        return Gallery(values.pop("checkpoint", checkpoint), paths, **values)  # type: ignore[arg-type]

    return make
