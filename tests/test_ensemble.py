from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captioner.bulk.pipeline import caption_paths
from captioner.caption import Caption
from captioner.captioner import Captioner
from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.datasets.codes import open_vectors
from captioner.decoding.options import DecodingOptions
from captioner.errors import CheckpointError, ImageError, OptionError
from captioner.images import Preprocessing
from captioner.model.config import NO_ENCODER
from captioner.model.encoder import NO_PREPROCESSING, CaptionNetwork
from captioner.saving import save_checkpoint
from captioner.vocabulary import SPECIAL_WORDS, Vocabulary
from tests.small_model import WORDS, in_double, small_checkpoint, with_size
from tests.tolerance import SIX_DECIMALS

OPTIONS = DecodingOptions(beam_size=3, num_captions=3, min_length=4, max_length=8)
SAMPLING = DecodingOptions(temperature=1.0, num_captions=2, max_length=8, seed=7)


def member(seed: int, *, encoder_seed: int = 0, **changes: Any) -> Checkpoint:
    """Another small model; its encoder is the pretrained one, or one that was trained further."""
    model = small_checkpoint(**{"cell": "gru", "attention": "additive", **changes})
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.network.decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        if encoder_seed:
            for parameter in model.network.encoder.parameters():
                parameter.mul_(1 + encoder_seed / 50)
    return replace(model, digest=f"digest-{seed}")


def blind(model: Checkpoint, channels: int = 1280) -> Checkpoint:
    """A model of vectors."""
    config = replace(model.network.config, encoder=NO_ENCODER, image_size=1, channels=channels)
    torch.manual_seed(1)
    return replace(model, network=CaptionNetwork(config).eval(), preprocessing=NO_PREPROCESSING)


def assert_same(found: list[list[Caption]], expected: list[list[Caption]]) -> None:
    assert [[each.text for each in of_one] for of_one in found] == [
        [each.text for each in of_one] for of_one in expected
    ]
    for one, other in zip(chain(*found), chain(*expected), strict=True):
        assert one.word_log_probs == pytest.approx(other.word_log_probs, abs=SIX_DECIMALS)
        assert one.log_prob == pytest.approx(other.log_prob, abs=SIX_DECIMALS * (len(one.words) + 1))


@pytest.fixture(scope="module")
def models(checkpoint: Checkpoint) -> list[Checkpoint]:
    """Three members that see differently: pretrained, trained further, and with larger images."""
    last = replace(with_size(member(2), 96), decoding=DecodingOptions(beam_size=7))
    return [checkpoint, member(1, encoder_seed=1), last]


@pytest.fixture(scope="module")
def ensemble(models: list[Checkpoint]) -> Captioner:
    return Captioner(models, device="cpu")


@pytest.fixture(scope="module")
def turned(models: list[Checkpoint]) -> Captioner:
    """The same members in the opposite order."""
    return Captioner(models[::-1], device="cpu")


def test_one_file_is_the_model_itself(checkpoint_file: Path, captioner: Captioner, images: list[Path]) -> None:
    alone = Captioner.load([checkpoint_file], device="cpu")
    assert type(alone) is Captioner
    assert alone.caption(images[:3]) == captioner.caption(images[:3])


@pytest.fixture(scope="module")
def alone(checkpoint: Checkpoint) -> Captioner:
    return Captioner(checkpoint, device="cpu")


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("copies", [1, 2])
def test_copies_of_a_model_are_the_model(
    copies: int, checkpoint: Checkpoint, alone: Captioner, images: list[Path]
) -> None:
    alone = in_double(alone)
    same = in_double(Captioner([checkpoint] * copies, device="cpu"))
    assert same.preprocess(images[0]).shape == alone.preprocess(images[0]).shape
    for options in (OPTIONS, SAMPLING):
        assert_same(same.caption(images[:3], options), alone.caption(images[:3], options))


@pytest.mark.usefixtures("double")
def test_the_members_are_averaged_word_by_word(
    models: list[Checkpoint], ensemble: Captioner, images: list[Path]
) -> None:
    alone = [in_double(Captioner(model, device="cpu")) for model in models]
    ensemble = in_double(ensemble)
    found = ensemble.caption(images[:3], OPTIONS)
    said = set()
    for image, captions in zip(images, found, strict=False):
        for caption in captions:
            probabilities = []
            for model in alone:
                (score,) = model.score(model.encode([model.preprocess(image)]), [" ".join(caption.words)])
                probabilities.append([*score.word_log_probs, score.end_log_prob])
            mean = np.log(np.exp(np.array(probabilities)).mean(axis=0))
            assert [*caption.word_log_probs, caption.end_log_prob] == pytest.approx(list(mean), abs=SIX_DECIMALS)
        said |= {captions[0].text} - {model.caption([image], OPTIONS)[0][0].text for model in alone}
    assert said  # which none of them would have said


@pytest.mark.usefixtures("double")
def test_given_texts_are_scored_by_the_mean_too(ensemble: Captioner, images: list[Path]) -> None:
    ensemble = in_double(ensemble)
    regions = ensemble.encode([ensemble.preprocess(images[0])])
    ((best, *_),) = ensemble.decode(regions, OPTIONS)
    (score,) = ensemble.score(regions, [best.text], runners_up=2)
    assert score.word_log_probs == pytest.approx(best.word_log_probs, abs=SIX_DECIMALS)
    assert score.log_prob == pytest.approx(best.log_prob, abs=SIX_DECIMALS * (len(best.words) + 1))
    assert all(len(place) == 2 for place in score.runners_up)


@pytest.mark.usefixtures("double")
def test_the_order_of_the_members_matters_for_nothing_but_the_options(
    models: list[Checkpoint], ensemble: Captioner, turned: Captioner, images: list[Path]
) -> None:
    ensemble, other = in_double(ensemble), in_double(turned)
    assert other.digest == "+".join(ensemble.digest.split("+")[::-1])
    for options in (OPTIONS, SAMPLING):
        assert_same(other.caption(images[:3], options), ensemble.caption(images[:3], options))
    assert ensemble.options == models[0].decoding
    assert other.options == models[-1].decoding == DecodingOptions(beam_size=7)


def test_a_image_is_encoded_once_for_members_that_see_alike(
    models: list[Checkpoint], monkeypatch: pytest.MonkeyPatch, images: list[Path]
) -> None:
    looked: list[tuple[int, ...]] = []
    original = Preprocessing.normalise

    def counting(self: Preprocessing, pixels: torch.Tensor) -> torch.Tensor:
        looked.append(tuple(pixels[0].shape))
        return original(self, pixels)

    ensemble = Captioner([*models[:2], member(4), member(5, attention="none")], device="cpu")
    monkeypatch.setattr(Preprocessing, "normalise", counting)
    ensemble.encode([ensemble.preprocess(images[0])])
    assert looked == [(64, 64, 3)] * 2  # two encoders, and one square serves both


@pytest.mark.usefixtures("double")
def test_a_member_with_attention_sees_regions_beside_one_without(checkpoint: Checkpoint, images: list[Path]) -> None:
    """Where nobody attends, callers may hand on the mean of the regions only."""
    members = [checkpoint, member(1)]
    ensemble = in_double(Captioner(members, device="cpu"))
    assert ensemble.config.attention == "additive"
    results = list(caption_paths(ensemble, images[:3], OPTIONS))
    assert_same([list(result.captions) for result in results], ensemble.caption(images[:3], OPTIONS))


def test_a_folder_is_captioned_the_same_whatever_the_batch(ensemble: Captioner, images: list[Path]) -> None:
    one = [result.captions for result in caption_paths(ensemble, images[:5], OPTIONS, batch_size=1)]
    all_at_once = [result.captions for result in caption_paths(ensemble, images[:5], OPTIONS, batch_size=5)]
    assert one == all_at_once
    with_process = caption_paths(ensemble, images[:5], OPTIONS, workers=1)
    assert [result.captions for result in with_process] == one


def test_an_array_of_another_shape_is_refused(ensemble: Captioner) -> None:
    with pytest.raises(ImageError, match=r"an array must be uint8 \(height, width, 3\)"):
        ensemble.caption([np.zeros(ensemble.preprocessing.shape[0] - 1, np.uint8)])


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str, Checkpoint], Path]:
    def save(name: str, checkpoint: Checkpoint) -> Path:
        save_checkpoint(tmp_path / name, checkpoint)
        return tmp_path / name

    return save


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (WORDS.replace("dog", "fox"), "word 7 is 'dog' in the one and 'fox' in the other"),
        (WORDS.replace("a the", "the a"), "word 4 is 'a' in the one and 'the' in the other"),
        (WORDS + " zebra", "word 34 is nothing in the one and 'zebra' in the other"),
    ],
)
def test_other_words_are_refused_in_one_line_that_names_the_files(
    words: str, difference: str, checkpoint_file: Path, saved: Callable[[str, Checkpoint], Path]
) -> None:
    model = small_checkpoint()
    vocabulary = Vocabulary(SPECIAL_WORDS + tuple(words.split()))
    config = replace(model.network.config, vocabulary_size=len(vocabulary))
    other = saved("other.safetensors", replace(model, network=CaptionNetwork(config), vocabulary=vocabulary))
    with pytest.raises(OptionError) as caught:
        Captioner.load([checkpoint_file, other], device="cpu")
    message = str(caught.value)
    assert message.startswith(f"{checkpoint_file} and {other} cannot be averaged: {difference}")
    assert "\n" not in message


def test_every_file_must_be_there(checkpoint_file: Path) -> None:
    with pytest.raises(CheckpointError, match="absent: no such checkpoint"):
        Captioner.load([checkpoint_file, "absent"])
    with pytest.raises(OptionError, match="name at least one checkpoint"):
        Captioner.load([])


def test_loading_names_all_members(checkpoint_file: Path, saved: Callable[[str, Checkpoint], Path]) -> None:
    second = saved("second.safetensors", member(3))
    digests = [load_checkpoint(path).digest for path in (checkpoint_file, second)]
    assert Captioner.load([checkpoint_file, second], device="cpu").digest == "+".join(digests)


def test_models_of_vectors_write_together_about_the_same_vectors(tmp_path: Path) -> None:
    one, two = blind(member(1)), blind(member(2))
    ensemble = Captioner([one, two], device="cpu")
    vectors = torch.randn(3, 4, 1280)
    assert len(ensemble.decode(vectors, OPTIONS)) == 3
    assert not ensemble.sees_images
    ensemble.check_takes_vectors()
    with pytest.raises(OptionError, match="vectors must be"):
        ensemble.decode(torch.randn(3, 4, 7))
    with pytest.raises(OptionError, match=r"checkpoint 1 and checkpoint 2: were not trained on the same"):
        Captioner([one, blind(member(2), channels=9)], device="cpu")
    with pytest.raises(OptionError, match="were not trained on the same kind of vectors"):
        Captioner([one, member(2)], device="cpu")


def test_vectors_are_refused_where_each_encoder_makes_its_own(ensemble: Captioner, tmp_path: Path) -> None:
    from captioner.vectors import check_shape

    np.save(tmp_path / "x.npy", np.zeros((2, 4, 1280), np.float32))
    with pytest.raises(OptionError, match="write together about images, not about vectors"):
        check_shape(ensemble, open_vectors(tmp_path / "x.npy"))
    with pytest.raises(OptionError, match="write together about images, not about vectors"):
        ensemble.decode(torch.zeros(2, 4, 1280))
