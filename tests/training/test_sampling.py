from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from captioner.model.config import ModelConfig
from captioner.model.decoder import Decoder
from captioner.training.data import make_batch
from captioner.training.losses import CrossEntropy
from captioner.training.optim import ScheduledSampling, draw, sampling_probability
from captioner.vocabulary import END, START

CAPTIONS = [[[START, 5, 6, 7, 4, END], [START, 4, END]], [[START, END], [START, 9, 8, 7, 6, 5, END]]]


def _decoder(attention: str = "none", dropout: float = 0.0) -> Decoder:
    torch.manual_seed(3)
    config = ModelConfig(
        encoder="none",
        image_size=1,
        channels=6,
        vocabulary_size=11,
        hidden_size=8,
        embedding_size=8,
        attention=attention,
        attention_size=8,
        dropout=dropout,
    )
    return Decoder(config)


def _loss(decoder: Decoder, next_input: ScheduledSampling | None) -> Tensor:
    torch.manual_seed(1)
    batch = make_batch([0, 1], CAPTIONS)
    state = decoder.initial_state(torch.randn(2, 3, 6)).select(batch.owners)
    return CrossEntropy(decoder).mean(state, batch.words, batch.lengths, next_input)


def _fed(decoder: Decoder, rows: int, probability: float) -> tuple[Tensor, Tensor, Tensor]:
    """True words, words that are fed, and the model's distribution, for one state in many rows."""
    outputs = torch.randn(1, 8).expand(rows, 8)
    true = torch.full((rows,), 3)
    fed = ScheduledSampling(decoder, probability)(outputs, true)
    return true, fed, decoder.logits(outputs[0]).softmax(-1)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("attention", ["none", "additive", "adaptive"])
def test_probability_zero_is_teacher_forcing(attention: str) -> None:
    decoder = _decoder(attention)
    forced, sampled = _loss(decoder, None), _loss(decoder, ScheduledSampling(decoder, 0.0))
    torch.testing.assert_close(sampled, forced)
    for loss in (forced, sampled):
        decoder.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: value.grad for name, value in decoder.named_parameters()}
    decoder.zero_grad()
    _loss(decoder, None).backward()  # type: ignore[no-untyped-call]
    for name, value in decoder.named_parameters():
        torch.testing.assert_close(gradients[name], value.grad)


def test_probability_one_feeds_words_as_often_as_the_model_expects_them() -> None:
    rows = 40_000
    _, fed, expected = _fed(_decoder(), rows, 1.0)
    shares = torch.bincount(fed, minlength=11) / rows
    # Five standard errors of the likeliest word's share.
    torch.testing.assert_close(shares, expected, rtol=0, atol=5 * math.sqrt(0.25 / rows))


def test_a_coin_is_tossed_for_every_position() -> None:
    rows = 40_000
    true, fed, expected = _fed(_decoder(), rows, 0.3)
    changed = (fed != true).float().mean().item()
    assert changed == pytest.approx(0.3 * (1 - expected[3].item()), abs=5 * math.sqrt(0.25 / rows))


@pytest.mark.usefixtures("double")
def test_captions_are_unrolled_over_the_words_that_were_drawn() -> None:
    decoder = _decoder()
    batch = make_batch([0, 1], CAPTIONS)
    fed: list[Tensor] = []

    def spied(outputs: Tensor, words: Tensor) -> Tensor:
        assert len(outputs) == len(words)
        fed.append(ScheduledSampling(decoder, 1.0)(outputs, words))
        return fed[-1]

    state = decoder.initial_state(torch.randn(2, 3, 6)).select(batch.owners)
    outputs = decoder.teacher_force(batch.words[:, :-1], batch.lengths, state, next_input=spied)
    drawn = batch.words[:, :-1].clone()
    for time, words in enumerate(fed, 1):
        drawn[: len(words), time] = words
    assert not torch.equal(drawn, batch.words[:, :-1])
    torch.testing.assert_close(outputs, decoder.teacher_force(drawn, batch.lengths, state))


def test_logits_that_are_no_numbers_do_not_raise() -> None:
    ids = draw(torch.full((3, 5), math.nan))
    assert ids.shape == (3,)
    assert ((ids >= 0) & (ids < 5)).all()


def test_an_impossible_word_is_never_drawn() -> None:
    logits = torch.tensor([0.0, -math.inf, 1.0]).expand(5000, 3)
    assert set(draw(logits).tolist()) == {0, 2}


def test_the_probability_rises_in_a_line() -> None:
    assert [sampling_probability(step, 4, 0.5) for step in range(5)] == [0.0, 0.125, 0.25, 0.375, 0.5]
