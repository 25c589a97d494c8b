"""Models that were trained on vectors: what they refuse, and how they get eyes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captioner.captioner import Captioner
from captioner.checkpoint import Checkpoint, load_checkpoint, with_encoder
from captioner.errors import CaptionerError, CheckpointError, EncoderError, OptionError
from captioner.metadata import describe
from captioner.model.config import NO_ENCODER
from captioner.saving import save_checkpoint
from tests.small_model import SIZE, small_checkpoint
from tests.vectors import fake_codes, vector_checkpoint

VECTORS = torch.from_numpy(fake_codes(3, 1280))


@pytest.fixture(scope="module")
def blind() -> Checkpoint:
    return vector_checkpoint()


@pytest.fixture(scope="module")
def blind_file(blind: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blind") / "blind.safetensors"
    save_checkpoint(path, blind, dtype=torch.float32)
    return path


def texts(captioner: Captioner, *arguments: Any) -> list[str]:
    return [captions[0].text for captions in captioner.decode(*arguments)]


def test_the_file_holds_no_encoder_and_captions_vectors(blind: Checkpoint, blind_file: Path) -> None:
    loaded = load_checkpoint(blind_file)
    assert loaded.network.config.encoder == NO_ENCODER
    assert not list(loaded.network.encoder.parameters())
    captioner = Captioner.load(blind_file, device="cpu")
    assert not captioner.sees_images
    assert not captioner.sees_pictures
    assert texts(captioner, VECTORS) == texts(Captioner(blind, device="cpu"), VECTORS)


def test_the_description_says_so(blind_file: Path) -> None:
    told = describe(blind_file)
    assert str(told["encoder"]).startswith("none; captions vectors of 1280 features")
    assert told["preprocessing"] == "none"


def test_an_encoder_left_out_is_no_other_thing_than_none(blind: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", blind, external_encoder=True)
    assert not Captioner.load(tmp_path / "x.safetensors", device="cpu").sees_images


def test_images_are_refused_with_what_to_do(blind_file: Path, images: list[Path]) -> None:
    captioner = Captioner.load(blind_file, device="cpu")
    for use in (
        lambda: captioner.caption(images[:1]),
        lambda: captioner.preprocess(images[0]),
        lambda: captioner.check_sees_images(),
        lambda: captioner.check_sees_pictures(),
        lambda: captioner.encode([np.zeros((1, 1, 3), np.uint8)]),
    ):
        with pytest.raises(EncoderError, match="images only when `encoder` NAME says what made the vectors"):
            use()


def test_decode_takes_one_vector_a_image_or_regions(blind: Checkpoint) -> None:
    captioner = Captioner(blind, device="cpu")
    assert texts(captioner, VECTORS) == texts(captioner, VECTORS[:, None])
    assert texts(captioner, VECTORS.half().double()) == texts(captioner, VECTORS.half())
    assert captioner.decode(VECTORS[:0]) == []


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (torch.zeros(1280), r"must be \(images, regions, 1280\) for this model, not \(1280,\)"),
        (torch.zeros(2, 512), r"not \(2, 512\)"),
        (torch.zeros(2, 0, 1280), r"not \(2, 0, 1280\)"),
        (torch.zeros(2, 3, 4, 1280), r"not \(2, 3, 4, 1280\)"),
        (torch.full((2, 1280), torch.nan), "infinite or not numbers"),
    ],
)
def test_decode_refuses_what_no_encoder_makes(blind: Checkpoint, vectors: torch.Tensor, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Captioner(blind, device="cpu").decode(vectors)


def test_with_its_encoder_it_is_the_model_it_was(blind_file: Path, images: list[Path]) -> None:
    whole = small_checkpoint()
    seeing = Captioner.load(blind_file, device="cpu", encoder="efficientnet_lite0", image_size=SIZE)
    assert seeing.sees_images
    assert seeing.sees_pictures
    assert seeing.preprocessing == whole.preprocessing
    captions = [best.text for best, *_ in seeing.caption(images)]
    assert captions == [best.text for best, *_ in Captioner(whole, device="cpu").caption(images)]
    blind = Captioner.load(blind_file, device="cpu")
    assert seeing.digest == f"{blind.digest}+efficientnet_lite0-{SIZE}-squash"
    cropping = Captioner.load(blind_file, device="cpu", encoder="efficientnet_lite0", image_size=SIZE, resize="crop")
    assert cropping.preprocessing.resize == "crop"
    assert cropping.digest != seeing.digest


@pytest.mark.parametrize(
    ("encoder", "more", "message"),
    [
        ("efficientnet_light", {}, "no encoder is called 'efficientnet_light'; did you mean"),
        ("none", {}, "no encoder is called 'none'"),
        ("efficientnet_lite0", {"image_size": 0}, "`image_size` must be at least 1, not 0"),
        ("efficientnet_lite0", {"image_size": 8}, "at least 32 px"),
    ],
)
def test_an_impossible_encoder_is_refused(blind: Checkpoint, encoder: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(CaptionerError, match=message):
        with_encoder(blind, encoder, **more)


def test_an_encoder_of_other_channels_is_refused(blind: Checkpoint) -> None:
    narrow = replace(blind.network.config, channels=512)
    blind.network.config, whole = narrow, blind.network.config
    try:
        with pytest.raises(EncoderError, match="gives vectors of 1280 features, the checkpoint was trained on 512"):
            with_encoder(blind, "efficientnet_lite0", image_size=SIZE)
    finally:
        blind.network.config = whole


def test_a_model_with_an_encoder_keeps_it(checkpoint: Checkpoint, checkpoint_file: Path) -> None:
    with pytest.raises(OptionError, match="carries its own encoder, efficientnet_lite0; leave it out"):
        with_encoder(checkpoint, "resnet50")
    with pytest.raises(OptionError, match="`image_size` and `resize` belong to `encoder`"):
        Captioner.load(checkpoint_file, device="cpu", image_size=64)


def test_tensors_of_an_encoder_that_is_none_are_foreign(checkpoint: Checkpoint, tmp_path: Path) -> None:
    config = checkpoint.network.config
    checkpoint.network.config = replace(config, encoder=NO_ENCODER)
    try:
        save_checkpoint(tmp_path / "x.safetensors", checkpoint)
    finally:
        checkpoint.network.config = config
    with pytest.raises(CheckpointError, match="tensors are absent or superfluous"):
        load_checkpoint(tmp_path / "x.safetensors")
