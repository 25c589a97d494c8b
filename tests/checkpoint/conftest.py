from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint.altering import join, split


@pytest.fixture
def edited(checkpoint_file: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the small checkpoint again with other metadata: a function from changes to a path."""

    def write(change: Callable[[dict[str, Any]], object]) -> Path:
        header, tensors = split(checkpoint_file)
        change(header)
        path = tmp_path / "edited.safetensors"
        path.write_bytes(join(header, tensors))
        return path

    return write


@pytest.fixture
def with_metadata(edited: Callable[..., Path]) -> Callable[..., Path]:
    """The same for one entry of the metadata, changed as a value rather than as a text."""

    def write(entry: str, **changes: object) -> Path:
        def change(header: dict[str, Any]) -> None:
            value = json.loads(header["__metadata__"][entry])
            header["__metadata__"][entry] = json.dumps(value | changes)

        return edited(change)

    return write
