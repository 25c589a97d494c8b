from __future__ import annotations

import pytest
import torch

from captioner.errors import OptionError
from captioner.model.config import ModelConfig
from captioner.model.decoder import Decoder
from tests.model.test_decoder import SMALL, small_decoder

pytestmark = pytest.mark.usefixtures("double")

CHANGES = {"attention": "adaptive", "attributes": 3}


def attributive(**changes: object) -> Decoder:
    decoder = small_decoder(**CHANGES, **changes)
    assert decoder.attributes is not None
    torch.nn.init.normal_(decoder.attributes.initial.weight)  # which starts at zero too
    decoder.attributes.log_frequency.copy_(-5 * torch.rand(11))
    return decoder


def test_the_words_that_an_image_says_most_about_are_shown_by_their_probability() -> None:
    decoder = attributive()
    assert decoder.attributes is not None
    probabilities = torch.rand(4, 11, dtype=torch.float64)
    shown = decoder.attributes.vectors(probabilities, decoder.embedding.weight)
    for row, of_image in zip(shown, probabilities.tolist(), strict=True):
        expected = torch.tensor(of_image, dtype=torch.float64)
        gains = expected * (expected / decoder.attributes.log_frequency.exp()).log()
        best = sorted(range(11), key=lambda word: -float(gains[word]))[:3]
        torch.testing.assert_close(row, torch.stack([of_image[word] * decoder.embedding.weight[word] for word in best]))


def test_a_word_as_likely_as_in_any_image_says_nothing() -> None:
    decoder = attributive()
    assert decoder.attributes is not None
    probabilities = decoder.attributes.log_frequency.exp().unsqueeze(0).clone()
    probabilities[0, [7, 2, 5]] = 1.0
    shown = decoder.attributes.vectors(probabilities, decoder.embedding.weight)
    rows = {tuple(row.tolist()) for row in shown[0]}
    assert rows == {tuple(decoder.embedding.weight[word].tolist()) for word in (2, 5, 7)}


def test_weights_are_those_of_regions_alone() -> None:
    decoder = attributive()
    regions = torch.randn(2, 4, 6, dtype=torch.float64)
    _, weights, _ = decoder.look(torch.tensor([1, 1]), decoder.initial_state(regions))
    assert weights is not None
    assert weights.shape == (2, 4)
    assert (weights >= 0).all()
    assert (weights.sum(dim=1) < 1).all()


def test_images_and_words_change_what_is_predicted() -> None:
    decoder = attributive()
    regions = torch.randn(1, 4, 6, dtype=torch.float64)
    word = torch.tensor([1])
    before, _ = decoder.step(word, decoder.initial_state(regions))
    assert decoder.attributes is not None
    layer = decoder.attributes.of_image[-1]
    with torch.no_grad():
        layer.bias[4:] += torch.linspace(-9, 9, 7)
    after, _ = decoder.step(word, decoder.initial_state(regions))
    assert not torch.allclose(before, after)


def test_without_an_image_its_attributes_are_all_that_is_seen() -> None:
    decoder = attributive()
    assert decoder.attributes is not None
    probabilities = torch.rand(2, 11, dtype=torch.float64)
    state = decoder.state_of_words(probabilities)
    shown = decoder.attributes.vectors(probabilities, decoder.embedding.weight)
    begun = torch.tanh(decoder.initial.bias + shown.sum(dim=1) @ decoder.attributes.initial.weight.T)
    torch.testing.assert_close(state.cell.flatten(1), begun)
    assert state.memory is not None
    assert [part.shape[2] for part in state.memory] == [3, 3]
    words, lengths = torch.randint(0, 11, (2, 5)), torch.tensor([5, 3])
    whole = decoder.logits(decoder.teacher_force(words, lengths, state))
    first, _ = decoder.step(words[:, 0], state)
    torch.testing.assert_close(whole[:2], first)


def test_words_are_not_learned_through_what_is_predicted_of_the_image() -> None:
    decoder = attributive()
    regions = torch.randn(2, 4, 6, dtype=torch.float64)
    logits, _ = decoder.step(torch.tensor([1, 2]), decoder.initial_state(regions))
    logits.square().sum().backward()
    assert decoder.attributes is not None
    assert all(parameter.grad is None for parameter in decoder.attributes.of_image.parameters())
    assert decoder.attributes.of_words.weight.grad is not None


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"attributes": 3}, "`attributes` are looked at by adaptive attention"),
        ({"attributes": 3, "attention": "additive"}, "`attributes` are looked at by adaptive attention"),
        ({"attributes": 12, "attention": "adaptive"}, "`attributes` must be at most the 11 words, not 12"),
        ({"attributes": -1, "attention": "adaptive"}, "attributes"),
    ],
)
def test_impossible_numbers_of_attributes_are_one_line(changes: dict[str, object], match: str) -> None:
    with pytest.raises(OptionError, match=match):
        ModelConfig(**(SMALL | changes))  # type: ignore[arg-type]
