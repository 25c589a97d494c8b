"""Bytes of an image file on their way to Pillow."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioner.images import open as opening
from captioner.images import read_file, reading
from captioner.images.reading import ImageReader
from tests.small_model import small_preprocessing


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An image of 12 MB."""
    Image.new("RGB", (2000, 2000), "teal").save(tmp_path / "large.bmp")
    return tmp_path / "large.bmp"


def test_pillow_is_given_the_very_bytes_that_were_read(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    given: list[bytes] = []
    plugin_of = opening.decoder_of

    def reading_it(*arguments: Any, **options: Any) -> bytes:
        read.append(read_file(arguments[0], max_pixels=options["max_pixels"]))
        return read[-1]

    def plugin(kind: str, name: str) -> Any:
        def opened(file: Any) -> Any:
            given.append(file.getvalue())
            return plugin_of(kind, name)(file)

        return opened

    monkeypatch.setattr(reading, "read_item", reading_it)
    monkeypatch.setattr(opening, "decoder_of", plugin)
    assert ImageReader(small_preprocessing(), 10**8, thumbnails=True)(large).error is None
    assert len(read) == 1
    assert len(given) == 2  # for the encoder and for the thumbnail
    assert given[0] is read[0]
    assert given[1] is read[0]


def test_reading_takes_memory_for_one_copy_and_a_bit(large: Path) -> None:
    size = large.stat().st_size
    tracemalloc.start()
    try:
        data = read_file(large)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(data) == size
    assert peak < 1.5 * size
