from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.gleu_score import sentence_gleu

from captioner.decoding.beam import Hypothesis, by_mbr, expected_gleu
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from tests.decoding.fakes import SPECIAL, TableModel, enumerate_captions, images

Words = tuple[int, ...]
FREE = {"no_repeat_ngram": 0, "no_repeat_word": False, "min_length": 0}


def hypothesis_of(words: Words, probability: float) -> Hypothesis:
    score = math.log(probability)
    return Hypothesis(words, (0.0,) * len(words), 0.0, log_prob=2 * score, score=score)


def pairwise(captions: Sequence[Words], probabilities: Sequence[float]) -> list[float]:
    """The definition, with nltk's GLEU."""
    return [
        sum(
            probability * (sentence_gleu([other], own) if own and other else 0.0)
            for other, probability in zip(captions, probabilities, strict=True)
        )
        for own in captions
    ]


CAPTIONS = st.lists(st.lists(st.integers(0, 3), max_size=8).map(tuple), min_size=1, max_size=7, unique=True)


@given(CAPTIONS, st.data())
def test_what_is_added_up_by_length_equals_nltk_pair_by_pair(captions: list[Words], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.01, 1), min_size=len(captions), max_size=len(captions)))
    shares = [weight / sum(weights) for weight in weights]
    assert expected_gleu(captions, shares) == pytest.approx(pairwise(captions, shares))


def test_two_that_agree_outweigh_a_likelier_one_alone() -> None:
    alone, first, second = (7, 8, 9), (1, 2, 3, 4), (1, 2, 3, 5)
    found = [hypothesis_of(alone, 0.4), hypothesis_of(first, 0.35), hypothesis_of(second, 0.25)]
    assert [each.words for each in by_mbr(found)] == [first, second, alone]


def test_one_that_is_likely_enough_stays_first() -> None:
    found = [hypothesis_of((7, 8, 9), 0.8), hypothesis_of((1, 2, 3), 0.1), hypothesis_of((1, 2, 4), 0.1)]
    assert by_mbr(found)[0].words == (7, 8, 9)


def test_only_order_and_score_change_and_ties_keep_their_order() -> None:
    found = [hypothesis_of((1, 2), 0.5), hypothesis_of((3, 4), 0.5)]
    for before, after in zip(found, by_mbr(found), strict=True):
        assert (after.words, after.log_prob, after.end_log_prob) == (before.words, before.log_prob, 0.0)
        assert after.score == pytest.approx(0.5)
    assert by_mbr([]) == []


@pytest.mark.parametrize("seed", range(6))
def test_a_search_that_finds_all_captions_orders_them_as_enumeration_does(seed: int) -> None:
    model, penalty = TableModel(5, seed), 0.7
    everything = enumerate_captions(model, image := 1, max_length=2, penalty=penalty)
    weights = [math.exp(score) for score, _ in everything]
    expected = pairwise([words for _, words in everything], [weight / sum(weights) for weight in weights])
    options = DecodingOptions(
        beam_size=len(everything),
        num_captions=3,
        max_length=2,
        length_penalty=penalty,
        consensus=True,
        **FREE,
    )
    (found,) = decode(model, images(2)[image:], options, SPECIAL)
    assert [each.score for each in found] == pytest.approx(sorted(expected, reverse=True)[:3])
    by_words = {words: value for (_, words), value in zip(everything, expected, strict=True)}
    assert [by_words[each.words] for each in found] == pytest.approx([each.score for each in found])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 6), st.integers(1, 6))
def test_it_chooses_among_what_the_same_search_finds_however_many_are_asked_for(
    seed: int, beam: int, asked: int
) -> None:
    model = TableModel(9, seed)
    asked = min(asked, beam)
    plain = DecodingOptions(beam_size=beam, num_captions=beam, max_length=6)
    few = DecodingOptions(beam_size=beam, num_captions=asked, max_length=6, consensus=True)
    for found, chosen in zip(
        decode(model, images(2), plain, SPECIAL), decode(model, images(2), few, SPECIAL), strict=True
    ):
        assert chosen == by_mbr(found)[:asked]


def test_a_beam_of_one_has_nobody_to_agree_with() -> None:
    model = TableModel(9)
    greedy, alone = (DecodingOptions(beam_size=1, max_length=6, consensus=on) for on in (False, True))
    for one, other in zip(
        decode(model, images(4), greedy, SPECIAL), decode(model, images(4), alone, SPECIAL), strict=True
    ):
        assert one[0].words == other[0].words


def test_drawn_captions_stay_as_they_were_drawn() -> None:
    model = TableModel(9)
    plain, told = (DecodingOptions(temperature=1.0, num_captions=4, max_length=6, consensus=on) for on in (False, True))
    assert decode(model, images(2), plain, SPECIAL) == decode(model, images(2), told, SPECIAL)
