from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from captioner import features
from captioner.captioner import Captioner
from captioner.errors import CacheError
from captioner.features import FeatureStore
from captioner.images import Pixels
from captioner.search.search import Doubles, Gallery
from tests.small_model import small_checkpoint

MakeGallery = Callable[..., Gallery]
TEXTS = ["a dog runs on grass", "a dog", "the man with a red ball"]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the encoder was given."""
    counts: list[int] = []
    encode = FeatureStore._encode

    def counting(store: FeatureStore, pixels: Sequence[Pixels]) -> object:
        counts.append(len(pixels))
        return encode(store, pixels)

    monkeypatch.setattr(FeatureStore, "_encode", counting)
    return counts


def _scores(captioner: Captioner, paths: Sequence[Path]) -> Doubles:
    """The same numbers by the captioner, pair by pair: ``(texts, images)``."""
    regions = captioner.encode([captioner.preprocess(path) for path in paths])
    rows = [captioner.score(regions, [text] * len(paths)) for text in TEXTS]
    return np.array([[score.log_prob for score in row] for row in rows])


@pytest.mark.parametrize("attention", ["none", "additive", "adaptive"])
def test_log_probabilities_are_those_of_the_captioner(
    attention: str, captioner: Captioner, images: list[Path], make_gallery: MakeGallery
) -> None:
    model = captioner
    if attention != "none":
        model = Captioner(small_checkpoint(cell="gru", attention=attention), device="cpu")
    gallery = make_gallery(images, model=model)
    found = gallery.log_probs([model.vocabulary.encode(text.split()) for text in TEXTS])
    expected = _scores(model, images)
    # Features are kept as float16, and this model's weights are four times as large as trained ones.
    np.testing.assert_allclose(found, expected, rtol=0.01, atol=0.02)


def test_a_second_gallery_encodes_and_reads_nothing(
    folder: Path,
    tmp_path: Path,
    make_gallery: MakeGallery,
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "_SETTLED_NS", -(10**12))
    paths = sorted(folder.iterdir())
    first = make_gallery(paths, cache=tmp_path / "own")
    assert encoded == [4]
    monkeypatch.setattr(features, "_digest", lambda path: pytest.fail("was read again"))
    again = make_gallery(paths[::-1], cache=tmp_path / "own")
    assert encoded == [4]
    assert np.array_equal(first.log_probs([[5, 6]]), again.log_probs([[5, 6]])[:, ::-1])


def test_images_that_change_come_and_go(
    folder: Path, tmp_path: Path, make_gallery: MakeGallery, encoded: list[int], images: list[Path]
) -> None:
    paths = sorted(folder.iterdir())
    make_gallery(paths, cache=tmp_path / "own")
    paths[0].unlink()
    shutil.copy(images[5], paths[1])
    shutil.copy(images[6], folder)
    now = sorted(folder.iterdir())
    found = make_gallery(now, cache=tmp_path / "own")
    assert encoded == [4, 2]
    assert found.paths == tuple(now)
    assert np.array_equal(found.log_probs([[5, 6]]), make_gallery(now).log_probs([[5, 6]]))


def test_broken_images_are_left_out_and_listed(folder: Path, make_gallery: MakeGallery) -> None:
    (folder / "broken.jpg").write_bytes(sorted(folder.iterdir())[0].read_bytes()[:100])
    (folder / "empty.png").write_bytes(b"")
    (folder / "same.png").write_bytes(b"")
    os.mkfifo(folder / "pipe.png")
    paths = [*sorted(folder.iterdir()), folder / "gone.jpg"]
    gallery = make_gallery(paths)
    broken = {"broken.jpg", "empty.png", "same.png", "pipe.png", "gone.jpg"}
    assert [path.name for path in gallery.paths] == [p.name for p in paths if p.name not in broken]
    assert {paths[place].name for place in gallery.broken} == broken
    for place, reason in gallery.broken.items():
        assert reason.startswith(f"{paths[place]}: ")
    assert gallery.log_probs([[5, 6]]).shape == (1, 4)


def test_not_one_image(make_gallery: MakeGallery, tmp_path: Path) -> None:
    gallery = make_gallery([tmp_path / "gone.jpg"])
    assert gallery.paths == ()
    assert gallery.log_probs([[5, 6]]).shape == (1, 0)


def test_a_cache_that_cannot_be_written(folder: Path, make_gallery: MakeGallery, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CacheError, match=r"cannot keep features in .*; .*`cache`"):
        make_gallery(sorted(folder.iterdir()), cache=tmp_path / "file")
