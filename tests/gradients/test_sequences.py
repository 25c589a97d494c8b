from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from captioner.checkpoint import Checkpoint
from captioner.datasets.records import Record
from captioner.errors import DatasetError
from captioner.gradients.measure import caption_sequences
from captioner.gradients.options import GradientOptions
from captioner.vocabulary import END, START

CAPTIONS = [("a dog", "the man runs on grass"), ("two dog",), ("a ball in water", "a")]


@pytest.fixture
def vectors(tmp_path: Path) -> list[Record]:
    """Three images as vectors of length 1280, each made of one number."""
    np.save(tmp_path / "codes.npy", np.array([[1.0], [2.0], [3.0]], np.float32).repeat(1280, axis=1))
    path = tmp_path / "codes.npy"
    return [Record(row, path, captions, "val", row) for row, captions in enumerate(CAPTIONS)]


def test_the_longest_captions_are_cut_to_one_length(
    checkpoint: Checkpoint, vectors: list[Record], capsys: pytest.CaptureFixture[str]
) -> None:
    regions, words = caption_sequences("x", checkpoint, vectors, GradientOptions(sequences=2))
    assert regions[:, 0, 0].tolist() == [1, 3]  # the image with five words, then the one with four
    encode = checkpoint.vocabulary.encode
    assert words.tolist() == [
        [START, *encode(["the", "man", "runs", "on", "grass"])],
        [START, *encode(["a", "ball", "in", "water"]), END],
    ]
    assert "sequences of 5 words, not 30" in capsys.readouterr().err
    _, words = caption_sequences("x", checkpoint, vectors, GradientOptions(sequences=99, length=2))
    assert words.shape == (3, 3)


def test_vectors_of_another_model_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", np.ones((2, 7), np.float32))
    records = [Record(0, tmp_path / "codes.npy", ("a dog",), "val", 0)]
    with pytest.raises(DatasetError, match="x takes vectors of length 1280, not 7"):
        caption_sequences("x", checkpoint, records, GradientOptions())


def test_a_model_of_vectors_sees_no_images(checkpoint: Checkpoint, tmp_path: Path) -> None:
    config = replace(checkpoint.network.config, encoder="none", image_size=1)
    blind = SimpleNamespace(vocabulary=checkpoint.vocabulary, network=SimpleNamespace(config=config))
    records = [Record("a.jpg", tmp_path / "a.jpg", ("a dog",), "val")]
    with pytest.raises(DatasetError, match="`dataset` codes"):
        caption_sequences("x", cast("Checkpoint", blind), records, GradientOptions())


def test_a_broken_image_is_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    records = [Record("a.jpg", tmp_path / "a.jpg", ("a dog",), "val")]
    options = GradientOptions(cache=str(tmp_path / "cache"))
    with pytest.raises(DatasetError, match=r"1 images are broken: .*a\.jpg"):
        caption_sequences("x", checkpoint, records, options)
