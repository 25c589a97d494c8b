from __future__ import annotations

import math
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captioner.captioner import Captioner
from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.decoding.beam import length_normalisation
from captioner.decoding.filters import SpecialIds
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.metadata import write_metadata
from captioner.model.config import NO_ENCODER, ModelConfig
from captioner.model.encoder import NO_PREPROCESSING, CaptionNetwork
from captioner.runtime.export import export_graphs
from captioner.runtime.load import load_model
from captioner.runtime.model import Ensemble, Floats, Loaded, State, log_mean
from captioner.runtime.torch import TorchModel, from_checkpoint
from captioner.scoring import replay
from captioner.vocabulary import END, PAD, SPECIAL_WORDS, START, UNKNOWN, Vocabulary
from tests.small_model import in_double, small_checkpoint, with_size
from tests.tolerance import summation_bound

in_float64 = pytest.mark.usefixtures("double")

WORDS = (4, 5, 6)
SPECIAL = SpecialIds(start=START, end=END, banned=(PAD, START, UNKNOWN))
LONGEST = 3


def tiny(seed: int, *, cell: str = "lstm", attention: str = "none") -> Loaded:
    """A seeded model of vectors and of three words that is sure of what it says."""
    config = ModelConfig(
        encoder=NO_ENCODER,
        image_size=1,
        channels=6,
        vocabulary_size=4 + len(WORDS),
        cell=cell,
        hidden_size=8 + seed,  # members need not be alike
        embedding_size=5,
        attention=attention,
        attention_size=4,
    )
    torch.manual_seed(seed)
    network = CaptionNetwork(config).eval()
    with torch.no_grad():
        for parameter in network.decoder.parameters():
            parameter.mul_(4)
    vocabulary = Vocabulary((*SPECIAL_WORDS, "x", "y", "z"))
    return from_checkpoint(Checkpoint(network, vocabulary, NO_PREPROCESSING), device="cpu")


def regions(images: int) -> np.typing.NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(images, 5, 6))


def together(*members: Loaded) -> Any:
    return Ensemble(members, ["a checkpoint"] * len(members))


@torch.inference_mode()
def mean_log_probs(members: list[Loaded], image: Floats, words: tuple[int, ...]) -> list[float]:
    """By the definition: at each place, the mean of the probabilities of the members, each on its own."""
    places = []
    for member in members:
        assert isinstance(member.model, TorchModel)
        decoder = member.model.decoder
        state = decoder.initial_state(torch.from_numpy(image)[None])
        found = []
        for before, word in zip((START, *words), (*words, END), strict=True):
            logits, state = decoder.step(torch.tensor([before]), state)
            found.append(float(logits[0].double().softmax(dim=0)[word]))
        places.append(found)
    return [math.log(sum(of_place) / len(of_place)) for of_place in zip(*places, strict=True)]


@in_float64
@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_the_caption_found_is_the_best_of_all_by_the_mean_of_probabilities(penalty: float) -> None:
    members = [tiny(1), tiny(2, cell="gru"), tiny(3, attention="additive")]
    options = DecodingOptions(
        beam_size=50, length_penalty=penalty, min_length=0, max_length=LONGEST, no_repeat_word=False
    )
    seen = regions(20)
    different = 0
    for image, (best, *_) in zip(seen, decode(together(*members), seen, options, SPECIAL), strict=True):
        scored = []
        for length in range(LONGEST + 1):
            for words in product(WORDS, repeat=length):
                log_probs = mean_log_probs(members, image, words)
                scored.append((sum(log_probs) / length_normalisation(length, penalty), words, log_probs))
        _, words, log_probs = max(scored)
        assert best.words == words
        assert [*best.word_log_probs, best.end_log_prob] == pytest.approx(log_probs)
        alone = [decode(member.model, image[None], options, SPECIAL)[0][0].words for member in members]
        different += any(words != other for other in alone)
    assert different  # members alone would have said something else


@in_float64
def test_steps_are_the_mean_of_probabilities_not_of_logarithms() -> None:
    members = [tiny(1), tiny(2)]
    ensemble, seen = together(*members), regions(4)
    words = np.array([[4], [5], [6], [4]])
    found, _ = ensemble.step(words, ensemble.initial_state(seen))
    each = [np.exp(member.model.step(words, member.model.initial_state(seen))[0]) for member in members]
    np.testing.assert_allclose(np.exp(found), (each[0] + each[1]) / 2)
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1)


def test_what_is_all_but_impossible_has_a_mean_too() -> None:
    rare = np.array([[-2000.0, -1e-9], [-2001.0, -1e-9]])
    expected = [-2000 + math.log((1 + math.exp(-1)) / 2), -1e-9]
    np.testing.assert_allclose(log_mean(list(rare)), expected)


@in_float64
@pytest.mark.parametrize("copies", [1, 2, 3])
def test_copies_of_one_decoder_are_that_decoder(copies: int) -> None:
    member, seen = tiny(1), regions(5)
    ensemble = together(*[member] * copies)
    for options in (
        DecodingOptions(beam_size=4, num_captions=4, max_length=6),
        DecodingOptions(temperature=1.0, num_captions=3, max_length=6),
        DecodingOptions(temperature=2.0, num_captions=9, min_length=0, max_length=9),  # some end early
    ):
        expected = decode(member.model, seen, options, SPECIAL)
        found = decode(ensemble, seen, options, SPECIAL)
        assert [[each.words for each in of_one] for of_one in found] == [
            [each.words for each in of_one] for of_one in expected
        ]
        for one, other in zip(chain(*found), chain(*expected), strict=True):
            assert one.word_log_probs == pytest.approx(other.word_log_probs)


@in_float64
def test_whole_sentences_have_the_probabilities_of_their_steps() -> None:
    members, seen = [tiny(1), tiny(2, attention="additive")], regions(2)
    sentences = [(5,), (4, 6, 5)]
    for found, image, words in zip(replay(together(*members), seen, sentences), seen, sentences, strict=True):
        assert found.log_probs == pytest.approx(mean_log_probs(members, image, words))


@in_float64
def test_members_with_encoders_of_their_own_read_their_own_regions(images: list[Path]) -> None:
    larger = with_size(small_checkpoint(cell="gru", attention="additive"), 96)
    ensemble = in_double(Captioner([small_checkpoint(), larger], device="cpu")).model
    assert isinstance(ensemble, Ensemble)
    packed = ensemble.encode([ensemble.preprocessing.load(image) for image in images[:4]])
    assert packed.shape == (4, 1, (2 * 2 + 3 * 3) * 1280) == (4, *ensemble.shape)
    words, each = np.array([[4], [5], [6], [4]]), []
    for model, count in zip(ensemble.members, (4, 9), strict=True):
        own = model.encode([model.preprocessing.load(image) for image in images[:4]])
        assert own.shape == (4, count, 1280)
        each.append(np.exp(model.step(words, model.initial_state(own))[0]))
    found, _ = ensemble.step(words, ensemble.initial_state(packed))
    np.testing.assert_allclose(np.exp(found), (each[0] + each[1]) / 2)


def test_regions_of_one_encoder_stay_as_they_are(images: list[Path]) -> None:
    model = small_checkpoint()
    ensemble = Captioner([model, replace(model)], device="cpu").model
    pixels = [model.preprocessing.load(image) for image in images[:2]]
    regions = ensemble.encode(pixels)
    assert np.array_equal(regions, Captioner(model, device="cpu").encode(pixels))
    assert regions.shape == (2, *ensemble.shape)


@given(rows=st.integers(1, 40), block=st.integers(1, 17))
def test_rows_are_padded_to_whole_blocks_with_rows(rows: int, block: int) -> None:
    given = np.arange(2 * rows).reshape(rows, 2)
    padded = State(None, (), block).padded(given)
    assert len(padded) % block == 0
    assert rows <= len(padded) < rows + block
    assert np.array_equal(padded[:rows], given)
    assert set(map(tuple, padded)) == set(map(tuple, given))


@given(
    data=st.data(),
    images=st.integers(1, 20),
    width=st.integers(1, 3),
    block=st.sampled_from([1, 4, 16]),
    tensors=st.booleans(),
)
def test_a_state_follows_its_images_and_captions(
    data: st.DataObject, images: int, width: int, block: int, tensors: bool
) -> None:
    """Exchanged and thrown away at will, each place holds what its image and caption had."""
    cell, memory = np.arange(images * width * 2.0).reshape(images, width, 1, 2), np.arange(images * 3.0).reshape(-1, 3)
    state = State(cell, (memory, -memory), block).select(np.arange(images))
    if tensors:
        state = replace(state, cell=torch.from_numpy(state.cell), memory=tuple(map(torch.from_numpy, state.memory)))
    for _ in range(3):
        if data.draw(st.booleans()):
            kept = np.array(data.draw(st.lists(st.integers(0, len(cell) - 1), min_size=1, max_size=20)))
            state, cell, memory = state.select(kept), cell[kept], memory[kept]
        else:
            shape = (len(cell), data.draw(st.integers(1, 4)))
            seed = data.draw(st.integers(0, 99))
            parents = np.random.default_rng(seed).integers(0, cell.shape[1], shape)
            state = state.reorder(parents)
            cell = np.stack([of_image[own] for of_image, own in zip(cell, parents, strict=True)])
        assert len(state.cell) == len(state.memory[0]) == -(-len(cell) // block) * block
        assert np.array_equal(state.cell[: len(cell)], cell)
        assert np.array_equal(state.memory[0][: len(cell)], memory)
        assert np.array_equal(state.memory[1][: len(cell)], -memory)


def test_models_of_both_engines_write_together(attentive_file: Path, images: list[Path], tmp_path: Path) -> None:
    """The probabilities of an ensemble are the mean of its members', whoever computes those."""
    by_torch = load_model(attentive_file, device="cpu", runtime="torch")
    checkpoint = load_checkpoint(attentive_file)
    graphs = export_graphs(checkpoint.network.config, checkpoint.preprocessing).text
    write_metadata(attentive_file, tmp_path / "x.safetensors", {"graphs": graphs})
    by_onnx = load_model(tmp_path / "x.safetensors", runtime="onnx")
    assert (by_torch.model.runtime, by_onnx.model.runtime) == ("torch", "onnx")
    pixels = [by_torch.model.preprocessing.load(image) for image in images[:3]]
    ensemble: Any = Ensemble([by_onnx, by_torch], ["one", "other"])
    state = ensemble.initial_state(ensemble.encode(pixels))
    words = np.array([[4], [5], [6]])
    each = []
    for member in (by_onnx.model, by_torch.model):
        own, after = member.step(words, member.initial_state(ensemble.encoders[0].encode(pixels)))
        each.append((own, member.step(words + 1, after)[0]))
    for time, at_once in enumerate((words, words + 1)):
        found, state = ensemble.step(at_once, state)
        mean = np.log(np.mean([np.exp(own[time].astype(np.float64)) for own in each], axis=0))
        # The largest is subtracted and added again; between lie an exponential, a sum, and a logarithm.
        np.testing.assert_allclose(found, mean, rtol=0, atol=summation_bound(8, 1 + np.abs(mean).max()))


def test_a_model_that_has_rested_writes_the_same(images: list[Path]) -> None:
    captioner = Captioner.load(device="cpu")
    assert captioner.model.runtime == "onnx"
    before = captioner.caption(images[:1])
    captioner.model.rest()
    assert captioner.caption(images[:1])[0][0].log_prob == before[0][0].log_prob
