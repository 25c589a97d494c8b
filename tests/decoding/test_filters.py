from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.decoding.filters import SpecialIds, strike, strike_repeated_words
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.decoding.things import CLOSES, Kind, named_again
from tests.decoding.fakes import END, SPECIAL, START, UNK, TableModel, images


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
    words = np.array([[coat, hat], [hat, and_], [and_, and_], [hat, coat]])
    scores = np.zeros((len(words), vocabulary))
    strike_repeated_words(words, scores, (and_,))
    struck = [set(np.flatnonzero(row == -np.inf).tolist()) for row in scores]
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


def rules(words: list[int], vocabulary: int, options: DecodingOptions, special: SpecialIds) -> set[int]:
    """The words that may come next, written down plainly."""
    if len(words) >= options.max_length:
        return {special.end}
    allowed = set(range(vocabulary)) - set(special.banned)
    size = options.no_repeat_ngram
    if size:
        allowed -= {word for word in allowed if tuple([*words, word][-size:]) in ngrams(tuple(words), size)}
    if options.no_repeat_word and words:
        allowed -= {words[-1]}
        if words[-1] in special.joining:
            allowed -= set(words[-2:])
    if options.no_repeat_thing and special.kinds and words:
        again = named_again(words, [special.kinds[word] for word in words])
        if len(words) - 1 in again:
            allowed -= {special.end, *(word for word in allowed if special.kinds[word] in CLOSES)}
    if len(words) < options.min_length:
        allowed -= {special.end}
    return allowed or {special.end}


@given(st.data(), st.integers(4, 12), st.integers(0, 8), st.integers(0, 3), st.booleans(), st.booleans())
def test_what_is_struck_out_is_what_the_rules_say(
    data: st.DataObject, vocabulary: int, length: int, size: int, once: bool, things: bool
) -> None:
    row = st.lists(st.integers(3, vocabulary - 1), min_size=length, max_size=length)
    words = data.draw(st.lists(row, min_size=1, max_size=4))
    least = data.draw(st.integers(0, 8))
    options = DecodingOptions(
        no_repeat_ngram=size, no_repeat_word=once, no_repeat_thing=things, min_length=least, max_length=8
    )
    kind = st.sampled_from((*Kind, Kind.PLAIN, Kind.PLAIN))
    kinds = data.draw(st.lists(kind, min_size=vocabulary, max_size=vocabulary) | st.just([]))
    special = SpecialIds(START, END, (START, UNK), joining=(3,), kinds=tuple(kinds))
    scores = -np.arange(1.0, 1 + len(words) * vocabulary).reshape(len(words), vocabulary)
    struck = scores.copy()
    strike(struck, np.array(words, np.int64).reshape(len(words), length), options, special)
    for own, before, after in zip(words, scores, struck, strict=True):
        allowed = rules(own, vocabulary, options, special)
        assert after.tolist() == [score if word in allowed else -np.inf for word, score in enumerate(before)]
