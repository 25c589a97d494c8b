from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.captioner import Captioner
from captioner.datasets.codes import open_vectors
from captioner.decoding.options import DecodingOptions
from captioner.errors import DatasetError, OptionError
from captioner.vectors import caption_vectors, named_vectors
from tests.small_model import small_checkpoint
from tests.vectors import fake_codes, vector_checkpoint

CHANNELS = 1280


@pytest.fixture(scope="module")
def blind() -> Captioner:
    """A captioner that takes vectors only."""
    return Captioner(vector_checkpoint(), device="cpu")


@pytest.fixture(scope="module")
def seeing() -> Captioner:
    """A captioner of images that looks at the four regions of its encoder."""
    return Captioner(small_checkpoint(attention="additive"), device="cpu")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("regions", [None, 3])
def test_captions_are_those_of_decode(blind: Captioner, tmp_path: Path, dtype: type, regions: int | None) -> None:
    array = fake_codes(7, CHANNELS, regions).astype(dtype)
    np.save(tmp_path / "codes.npy", array)
    results = list(caption_vectors(blind, [open_vectors(tmp_path / "codes.npy")], blind.options, batch_size=3))
    assert [str(result.image) for result in results] == [f"{tmp_path / 'codes.npy'}#{row}" for row in range(7)]
    expected = blind.decode(torch.from_numpy(array))
    assert [result.captions[0].text for result in results] == [captions[0].text for captions in expected]
    assert [result.captions[0].log_prob for result in results] == pytest.approx(
        [captions[0].log_prob for captions in expected], abs=1e-4
    )
    assert len({result.captions[0].text for result in results}) > 1


def test_sampled_captions_do_not_depend_on_batches_or_other_rows(blind: Captioner, tmp_path: Path) -> None:
    array = fake_codes(6, CHANNELS)
    np.save(tmp_path / "codes.npy", array)
    np.save(tmp_path / "last.npy", array[5:])
    options = DecodingOptions(temperature=1.0, seed=3, max_length=8)
    texts = {
        size: [
            result.captions[0].text
            for result in caption_vectors(blind, [open_vectors(tmp_path / "codes.npy")], options, batch_size=size)
        ]
        for size in (1, 4)
    }
    (alone,) = caption_vectors(blind, [open_vectors(tmp_path / "last.npy")], options)
    assert texts[1] == texts[4]
    assert alone.captions[0].text == texts[1][5]


def test_a_bad_row_is_told_and_the_others_go_on(blind: Captioner, tmp_path: Path) -> None:
    array = fake_codes(4, CHANNELS)
    array[0, 0], array[2, 9] = np.nan, -np.inf
    np.save(tmp_path / "codes.npy", array)
    results = list(caption_vectors(blind, [open_vectors(tmp_path / "codes.npy")], blind.options, batch_size=2))
    assert [result.error is None for result in results] == [False, True, False, True]
    assert results[2].error == f"{results[2].image}: holds values that are infinite or not numbers"
    assert results[2].captions == ()


def test_files_follow_each_other(blind: Captioner, tmp_path: Path) -> None:
    for name, count in (("b.npy", 2), ("a.npy", 1)):
        np.save(tmp_path / name, fake_codes(count, CHANNELS))
    results = caption_vectors(blind, named_vectors([tmp_path / "b.npy", tmp_path / "a.npy"]), blind.options)
    assert [result.image.name for result in results] == ["b.npy#0", "b.npy#1", "a.npy#0"]


def test_vectors_of_another_encoder_are_refused_before_any_caption(blind: Captioner, tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", fake_codes(2, CHANNELS))
    np.save(tmp_path / "other.npy", fake_codes(2, 512))
    results = caption_vectors(blind, named_vectors([tmp_path / "good.npy", tmp_path / "other.npy"]), blind.options)
    with pytest.raises(DatasetError, match=r"other.npy: has 512 features a vector, the checkpoint takes 1280"):
        next(results)


def test_a_image_model_captions_vectors_of_its_encoder(seeing: Captioner, images: list[Path], tmp_path: Path) -> None:
    regions = seeing.encode([seeing.preprocess(image) for image in images[:3]])
    np.save(tmp_path / "codes.npy", regions)
    results = list(caption_vectors(seeing, [open_vectors(tmp_path / "codes.npy")], seeing.options))
    expected = [captions[0].text for captions in seeing.caption(images[:3])]
    assert [result.captions[0].text for result in results] == expected


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (None, "has one vector an image, but the checkpoint looks at regions"),
        (9, "has 9 regions an image, the encoder of the checkpoint makes 4"),
    ],
)
def test_attention_needs_the_regions_of_its_encoder(
    seeing: Captioner, tmp_path: Path, regions: int | None, message: str
) -> None:
    np.save(tmp_path / "codes.npy", fake_codes(2, CHANNELS, regions))
    with pytest.raises(DatasetError, match=message):
        next(caption_vectors(seeing, [open_vectors(tmp_path / "codes.npy")], seeing.options))


def test_a_model_of_vectors_takes_any_number_of_regions(tmp_path: Path) -> None:
    blind = Captioner(vector_checkpoint(attention="additive"), device="cpu")
    np.save(tmp_path / "codes.npy", fake_codes(2, CHANNELS, 5))
    assert len(list(caption_vectors(blind, [open_vectors(tmp_path / "codes.npy")], blind.options))) == 2


def test_a_batch_of_none_is_refused(blind: Captioner, tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", fake_codes(2, CHANNELS))
    with pytest.raises(OptionError, match="`batch_size` must be at least 1, not 0"):
        next(caption_vectors(blind, [open_vectors(tmp_path / "codes.npy")], blind.options, batch_size=0))


def test_vectors_are_known_by_their_suffix(tmp_path: Path) -> None:
    for name in ("a.npy", "b.NPY"):
        with (tmp_path / name).open("wb") as file:
            np.save(file, fake_codes(2))
    found = named_vectors([tmp_path / "b.NPY", str(tmp_path / "a.npy")])
    assert [vectors.path.name for vectors in found] == ["b.NPY", "a.npy"]
    assert named_vectors(["a.jpg", "npy", "folder", ".npy"]) == []
    with pytest.raises(OptionError, match=r"b.npy holds vectors, other files are images"):
        named_vectors(["a.jpg", "b.npy"])
    with pytest.raises(DatasetError, match=r"absent.npy: there is no such file"):
        named_vectors(["absent.npy"])
