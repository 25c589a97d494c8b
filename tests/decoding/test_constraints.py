from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.decoding.beam import Hypothesis, Wanted
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.errors import OptionError
from tests.decoding.fakes import SPECIAL, TableModel, enumerate_captions, images

FREE = {"no_repeat_ngram": 0, "no_repeat_word": False, "min_length": 0}
VOCABULARY = 6  # words 3, 4 and 5
SETS = st.lists(st.sets(st.sampled_from([3, 4, 5]), min_size=1, max_size=2), min_size=1, max_size=2)


def search(
    model: TableModel, options: DecodingOptions, wanted: Wanted | None, count: int = 0
) -> list[list[Hypothesis]]:
    return decode(model, images(count or len(wanted or ())), options, SPECIAL, wanted=wanted)


def meets(words: tuple[int, ...], sets: object) -> bool:
    return all(set(words) & set(ids) for ids in sets)  # type: ignore[attr-defined]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.lists(SETS, min_size=1, max_size=3), st.sampled_from([0.0, 0.7, 1.5]))
def test_a_wide_beam_finds_the_best_captions_that_hold_what_is_wanted(
    seed: int, wanted: list[list[set[int]]], penalty: float
) -> None:
    model = TableModel(VOCABULARY, seed)
    options = DecodingOptions(beam_size=27, num_captions=3, max_length=3, length_penalty=penalty, **FREE)
    for image, (sets, found) in enumerate(zip(wanted, search(model, options, wanted), strict=True)):
        every = enumerate_captions(model, image, max_length=3, penalty=penalty)
        best = [caption for caption in every if meets(caption[1], sets)][:3]
        assert [hypothesis.words for hypothesis in found] == [words for _, words in best]
        assert [hypothesis.score for hypothesis in found] == pytest.approx([score for score, _ in best])
        for hypothesis in found:
            own = model.log_probs(image, hypothesis.words)
            assert [*hypothesis.word_log_probs, hypothesis.end_log_prob] == pytest.approx(own)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4), st.lists(SETS, min_size=1, max_size=4))
def test_narrow_beams_hold_what_is_wanted_whatever_stands_beside(
    seed: int, beam: int, wanted: list[list[set[int]]]
) -> None:
    model = TableModel(VOCABULARY, seed)
    options = DecodingOptions(beam_size=beam, max_length=6)
    together = search(model, options, wanted)
    for image, (sets, found) in enumerate(zip(wanted, together, strict=True)):
        assert found
        assert all(meets(hypothesis.words, sets) for hypothesis in found)
        alone = decode(model, images(9)[image : image + 1], options, SPECIAL, wanted=[sets])
        assert alone == [found]


def test_images_of_which_nothing_is_wanted_are_written_as_ever() -> None:
    model = TableModel(12, seed=3)
    options = DecodingOptions(beam_size=3, max_length=8)
    plain = search(model, options, None, count=5)
    assert search(model, options, [[]] * 5) == plain
    beside = search(model, options, [[], [{7}], [], [{8, 9}, {5}], []])
    assert [beside[image] for image in (0, 2, 4)] == [plain[image] for image in (0, 2, 4)]


def test_a_word_that_stands_there_anyway_changes_nothing() -> None:
    model = TableModel(12, seed=4)
    options = DecodingOptions(beam_size=4, max_length=8)
    plain = search(model, options, None, count=6)
    assert all(found[0].words for found in plain)
    wanted = [[{found[0].words[0]}] for found in plain]
    for before, after in zip(plain, search(model, options, wanted), strict=True):
        assert after[0].score >= before[0].score - 1e-6


def test_without_room_for_what_is_wanted_there_is_no_caption() -> None:
    options = DecodingOptions(beam_size=2, max_length=1)
    found = search(TableModel(VOCABULARY), options, [[{3}, {4}], [{3}, {3, 4}]])
    assert [len(of_image) for of_image in found] == [0, 1]


def test_drawn_captions_cannot_be_asked_for_words() -> None:
    options = replace(DecodingOptions(), temperature=1.0)
    with pytest.raises(OptionError, match="searched for, not of drawn ones"):
        search(TableModel(VOCABULARY), options, [[{3}]])
