"""The shipped weights: what every visitor sees first."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.captioner import Captioner
from captioner.errors import CheckpointError
from captioner.images import open_image
from captioner.weights import are_numbers, file_digest, find_weights, read_header

ROOT = Path(__file__).parents[1]
SAMPLES = sorted(path for path in (ROOT / "data" / "samples").iterdir() if path.suffix in (".jpg", ".png"))


@pytest.fixture(scope="module")
def shipped() -> Captioner:
    return Captioner.load()


def test_one_file_under_the_size_limit_with_a_card() -> None:
    assert find_weights().stat().st_size < 80 << 20
    card = (ROOT / "weights" / "README.md").read_text(encoding="utf-8")
    for heading in ("Data", "Licence", "Recipe", "Figures", "Failings"):
        assert f"## {heading}" in card


def test_the_checkpoint_says_how_it_came_about(shipped: Captioner) -> None:
    assert {"options", "data", "validation", "date", "versions"} <= set(shipped.training)


def test_samples_get_captions_of_their_own(shipped: Captioner) -> None:
    captions = [found[0] for found in shipped.caption(SAMPLES)]
    assert all(len(caption.words) >= 3 for caption in captions)
    assert len({caption.text for caption in captions}) >= 0.8 * len(SAMPLES)


@pytest.mark.parametrize(("name", "word"), [("dogs.jpg", "dog")])
def test_plain_photographs_are_recognised(shipped: Captioner, name: str, word: str) -> None:
    ((caption,),) = shipped.caption([ROOT / "data" / "samples" / name])
    assert word in caption.text.lower()


def test_reading_large_photographs_at_reduced_scale_keeps_their_captions(shipped: Captioner, tmp_path: Path) -> None:
    """A JPEG of several megapixels is decoded at a fraction of its size; the caption must not notice.

    The pixels change less than by saving as JPEG. Where two captions are as good as equal, here one of a
    bridge, even that turns the choice.
    """
    changed = []
    for sample in SAMPLES:
        with Image.open(sample) as image:
            large = image.convert("RGB").resize((4 * image.width, 4 * image.height))
        path = tmp_path / f"{sample.stem}.jpg"
        large.save(path, quality=90)
        unsaved, whole, reduced = (shipped.preprocess(source) for source in (large, open_image(path), path))
        assert _difference(whole, reduced) < _difference(whole, unsaved), sample.name
        if shipped.caption([reduced])[0][0].text != shipped.caption([whole])[0][0].text:
            changed.append(sample.name)
    assert len(changed) <= 1, changed


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def test_a_file_is_hashed_again_once_it_has_changed(checkpoint_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for ending in (b"", b"more"):
        path.unlink(missing_ok=True)
        path.write_bytes(checkpoint_file.read_bytes() + ending)
        assert file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert file_digest(checkpoint_file) == Captioner.load(checkpoint_file, device="cpu").digest
    with pytest.raises(CheckpointError, match="absent: cannot be read: No such file"):
        file_digest(tmp_path / "absent")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x05",
        b"\xff" * 8,
        (10).to_bytes(8, "little") + b"{}",
        (9).to_bytes(8, "little") + b"[1, 2, 3]",
        (19).to_bytes(8, "little") + b'{"__metadata__": 1}',
        (8).to_bytes(8, "little") + b"\xff\xfe\xfd{}{}{",
    ],
    ids=repr,
)
def test_a_damaged_header_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged.safetensors: truncated, damaged or not a safetensors file"):
        read_header(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_header(tmp_path / "pipe")


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_infinite_values_are_no_numbers_whatever_their_precision(kind: type) -> None:
    assert are_numbers(np.array([], kind))
    assert are_numbers(np.array([-6e4, 6e4], kind))
    assert not any(are_numbers(np.array([0, wrong], kind)) for wrong in (np.inf, -np.inf, np.nan))
