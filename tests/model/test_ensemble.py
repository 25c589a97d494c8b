from __future__ import annotations

import math
from itertools import chain, product

import pytest
import torch
from torch import Tensor

from captioner.decoding.beam import length_normalisation
from captioner.decoding.filters import SpecialIds
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.model.config import ModelConfig
from captioner.model.decoder import Decoder
from captioner.model.inference import EnsembleDecoder, pack, unpack
from captioner.vocabulary import END, PAD, START, UNKNOWN

pytestmark = pytest.mark.usefixtures("double")

WORDS = (4, 5, 6)
SPECIAL = SpecialIds(start=START, end=END, banned=(PAD, START, UNKNOWN))
LONGEST = 3


def tiny(seed: int, *, channels: int = 6, cell: str = "lstm", attention: str = "none") -> Decoder:
    """A seeded decoder of three words that is sure of what it says."""
    config = ModelConfig(
        encoder="efficientnet_lite0",
        image_size=64,
        channels=channels,
        vocabulary_size=4 + len(WORDS),
        cell=cell,
        hidden_size=8 + seed,  # members need not be alike
        embedding_size=5,
        attention=attention,
        attention_size=4,
    )
    torch.manual_seed(seed)
    decoder = Decoder(config).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(4)
    return decoder


def regions(images: int, count: int = 5, channels: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(images, count, channels, generator=torch.Generator().manual_seed(seed))


def together(*members: Decoder) -> EnsembleDecoder:
    """An ensemble whose members read the same regions."""
    return EnsembleDecoder(members)


@torch.inference_mode()
def mean_log_probs(members: list[Decoder], image: Tensor, words: tuple[int, ...]) -> list[float]:
    """By the definition: at each place, the mean of the probabilities of the members, each on its own."""
    places = []
    for member in members:
        state = member.initial_state(image.unsqueeze(0))
        found = []
        for before, word in zip((START, *words), (*words, END), strict=True):
            logits, state = member.step(torch.tensor([before]), state)
            found.append(float(logits[0].double().softmax(dim=0)[word]))
        places.append(found)
    return [math.log(sum(of_place) / len(of_place)) for of_place in zip(*places, strict=True)]


@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_the_caption_found_is_the_best_of_all_by_the_mean_of_probabilities(penalty: float) -> None:
    members = [tiny(1), tiny(2, cell="gru"), tiny(3, attention="additive")]
    options = DecodingOptions(
        beam_size=50, length_penalty=penalty, min_length=0, max_length=LONGEST, no_repeat_word=False
    )
    seen = regions(6)
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
        alone = [decode(member, image.unsqueeze(0), options, SPECIAL)[0][0].words for member in members]
        different += any(words != other for other in alone)
    assert different  # members alone would have said something else


@torch.inference_mode()
def test_steps_are_the_mean_of_probabilities_not_of_logarithms() -> None:
    members = [tiny(1), tiny(2)]
    ensemble, seen = together(*members), regions(4)
    words = torch.tensor([4, 5, 6, 4])
    found, _ = ensemble.step(words, ensemble.initial_state(seen))
    each = [member.step(words, member.initial_state(seen))[0].softmax(dim=-1) for member in members]
    torch.testing.assert_close(found.softmax(dim=-1), (each[0] + each[1]) / 2)
    torch.testing.assert_close(found.exp().sum(dim=-1), torch.ones(4))


@pytest.mark.parametrize("copies", [1, 2, 3])
@torch.inference_mode()
def test_copies_of_one_decoder_are_that_decoder(copies: int) -> None:
    member, seen = tiny(1), regions(5)
    ensemble = together(*[member] * copies)
    for options in (
        DecodingOptions(beam_size=4, num_captions=4, max_length=6),
        DecodingOptions(temperature=1.0, num_captions=3, max_length=6),
        DecodingOptions(temperature=2.0, num_captions=9, min_length=0, max_length=9),  # some end early
    ):
        expected = decode(member, seen, options, SPECIAL)
        found = decode(ensemble, seen, options, SPECIAL)
        assert [[each.words for each in of_one] for of_one in found] == [
            [each.words for each in of_one] for of_one in expected
        ]
        for one, other in zip(chain(*found), chain(*expected), strict=True):
            assert one.word_log_probs == pytest.approx(other.word_log_probs)


@torch.inference_mode()
def test_whole_sentences_have_the_probabilities_of_their_steps() -> None:
    members = [tiny(1), tiny(2, attention="additive")]
    ensemble, seen = together(*members), regions(2)
    words, lengths = torch.tensor([[START, 4, 6, 5], [START, 5, PAD, PAD]]), torch.tensor([4, 2])
    outputs = ensemble.teacher_force(words, lengths, ensemble.initial_state(seen))
    log_probs = ensemble.logits(outputs).log_softmax(dim=-1)
    # Packed, so time by time: both sentences twice, then the longer one alone.
    targets = [4, 5, 6, END, 5, END]
    found = log_probs[range(6), targets].tolist()
    first, second = mean_log_probs(members, seen[0], (4, 6, 5)), mean_log_probs(members, seen[1], (5,))
    expected = [first[0], second[0], first[1], second[1], first[2], first[3]]
    assert found == pytest.approx(expected)


@torch.inference_mode()
def test_members_with_encoders_of_their_own_read_their_own_regions() -> None:
    one, two = tiny(1, channels=6), tiny(2, channels=3, attention="additive")
    shapes = [(7, 3), (5, 6)]
    wide, narrow = regions(4), regions(4, 7, 3, seed=1)
    packed = pack([narrow, wide])
    assert packed.shape == (4, 1, 51)
    assert all(map(torch.equal, unpack(packed, shapes), (narrow, wide)))
    ensemble = EnsembleDecoder([one, two], [1, 0], shapes)
    words = torch.tensor([4, 5, 6, 4])
    found, _ = ensemble.step(words, ensemble.initial_state(packed))
    each = [m.step(words, m.initial_state(r))[0].softmax(dim=-1) for m, r in ((one, wide), (two, narrow))]
    torch.testing.assert_close(found.exp(), (each[0] + each[1]) / 2)


def test_regions_of_one_encoder_stay_as_they_are() -> None:
    seen = regions(2)
    assert pack([seen]) is seen
    assert unpack(seen, [(5, 6)]) == [seen]
