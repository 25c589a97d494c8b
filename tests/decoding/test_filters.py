from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.decoding.filters import strike_repeated_words
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from tests.decoding.fakes import SPECIAL, START, UNK, TableModel, images


def ngrams(words: tuple[int, ...], size: int) -> list[tuple[int, ...]]:
    return [words[start : start + size] for start in range(len(words) - size + 1)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 500),
    temperature=st.sampled_from([None, 1.5]),
    size=st.integers(1, 4),
    lengths=st.tuples(st.integers(0, 6), st.integers(6, 12)),
)
def test_rules_hold_for_every_caption(
    seed: int, temperature: float | None, size: int, lengths: tuple[int, int]
) -> None:
    options = DecodingOptions(
        temperature=temperature,
        num_captions=3,
        no_repeat_ngram=size,
        min_length=lengths[0],
        max_length=lengths[1],
    )
    vocabulary = 16
    for found in decode(TableModel(vocabulary, seed, end_bias=-2.0), images(2), options, SPECIAL):
        assert found
        for hypothesis in found:
            words = hypothesis.words
            assert lengths[0] <= len(words) <= lengths[1]
            assert not set(words) & {START, UNK}
            assert len(set(ngrams(words, size))) == len(ngrams(words, size))
            assert all(left != right for left, right in itertools.pairwise(words))


def test_a_word_repeats_neither_directly_nor_behind_a_joining_word() -> None:
    hat, and_, coat, vocabulary = 3, 4, 5, 6
    words = torch.tensor([[coat, hat], [hat, and_], [and_, and_], [hat, coat]])
    allowed = torch.ones(len(words), vocabulary, dtype=torch.bool)
    strike_repeated_words(words, allowed, (and_,))
    struck = [set((~row).nonzero().flatten().tolist()) for row in allowed]
    assert struck == [{hat}, {hat, and_}, {and_}, {coat}]


def test_repeats_are_allowed_when_asked_for() -> None:
    class Stutter(TableModel):
        def logits(self, history):  # type: ignore[no-untyped-def]
            logits = super().logits(history)
            logits[3] += 50
            return logits

    options = DecodingOptions(no_repeat_ngram=0, no_repeat_word=False, min_length=5, max_length=5)
    (found,) = decode(Stutter(6), images(1), options, SPECIAL)
    assert found[0].words == (3, 3, 3, 3, 3)


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_a_caption_ends_when_the_rules_leave_no_word(temperature: float | None) -> None:
    # One usable word that may occur once only, but at least four words are asked for.
    options = DecodingOptions(temperature=temperature, no_repeat_ngram=1, min_length=4, max_length=8)
    (found,) = decode(TableModel(4), images(1), options, SPECIAL)
    assert found[0].words == (3,)
