from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.decoding.beam import Hypothesis, top
from captioner.decoding.filters import Floats
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.decoding.things import Kind, named_again
from tests.decoding.fakes import END, SPECIAL, START, UNK, TableModel, enumerate_captions, images, log_softmax

FREE = {"no_repeat_ngram": 0, "no_repeat_word": False, "min_length": 0}


def search(model: TableModel, count: int, options: DecodingOptions) -> list[list[Hypothesis]]:
    return decode(model, images(count), options, SPECIAL)


@pytest.mark.parametrize("vocabulary", [4, 5, 6])
@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.5])
@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_what_exhaustive_enumeration_finds(vocabulary: int, penalty: float, seed: int) -> None:
    model = TableModel(vocabulary, seed)
    widest = (vocabulary - 2) ** 3  # at least as many as there are continuations in any step
    options = DecodingOptions(
        beam_size=widest, num_captions=min(4, widest), max_length=3, length_penalty=penalty, **FREE
    )
    for image, found in enumerate(search(model, 3, options)):
        best = enumerate_captions(model, image, max_length=3, penalty=penalty)[: options.num_captions]
        assert [hypothesis.words for hypothesis in found] == [words for _, words in best]
        assert [hypothesis.score for hypothesis in found] == pytest.approx([score for score, _ in best])


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_all_captions_that_name_nothing_twice(seed: int) -> None:
    kinds = (*[Kind.CLOSING] * 4, Kind.PLAIN, Kind.PLAIN)  # 3 is "of", 4 and 5 are things
    model, special = TableModel(len(kinds), seed), replace(SPECIAL, kinds=kinds)
    options = DecodingOptions(num_captions=3**5, max_length=4, length_penalty=0.7, **FREE)
    (found,) = decode(model, images(1), options, special)

    def right(words: tuple[int, ...]) -> bool:
        # At its greatest length a caption ends, whatever it says.
        return set(named_again(words, [kinds[word] for word in words])) <= {3}

    every = enumerate_captions(model, 0, max_length=4, penalty=0.7)
    best = [caption for caption in every if right(caption[1])]
    assert len(best) < len(every)
    assert [hypothesis.words for hypothesis in found] == [words for _, words in best]
    assert [hypothesis.score for hypothesis in found] == pytest.approx([score for score, _ in best])


@pytest.mark.parametrize("seed", range(8))
def test_a_beam_as_wide_as_the_vocabulary_is_exact_for_short_captions(seed: int) -> None:
    for vocabulary, max_length in ((12, 1), (5, 2)):
        model = TableModel(vocabulary, seed)
        options = DecodingOptions(beam_size=vocabulary + 1, max_length=max_length, length_penalty=0.0, **FREE)
        (found,) = search(model, 1, options)
        assert found[0].words == enumerate_captions(model, 0, max_length, penalty=0.0)[0][1]


def reference_beam_search(model: TableModel, image: int, options: DecodingOptions) -> tuple[int, ...]:
    """Beam search written down plainly with Python lists, without early stopping."""
    beams: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    exponent = options.length_penalty if options.beam_size > 1 else 0.0
    for length in range(options.max_length + 1):
        grown = []
        for total, words in beams:
            for word, log_prob in enumerate(log_softmax(model.logits((image, START, *words))).tolist()):
                if word == END or (word not in (START, UNK) and length < options.max_length):
                    grown.append((total + log_prob, words, word))
        grown.sort(key=lambda item: -item[0])
        for total, words, word in grown[: options.beam_size]:
            if word == END:
                finished.append((total / ((5 + length) / 6) ** exponent, words))
        going_on = [(total, (*words, word)) for total, words, word in grown if word != END]
        beams = going_on[: options.beam_size]
    return max(finished, key=lambda item: item[0])[1]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1000),
    st.integers(1, 6),
    st.integers(4, 9),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    st.integers(1, 6),
)
def test_narrow_beams_equal_a_plain_reference(
    seed: int, beam: int, vocabulary: int, penalty: float, max_length: int
) -> None:
    model = TableModel(vocabulary, seed)
    options = DecodingOptions(beam_size=beam, max_length=max_length, length_penalty=penalty, **FREE)
    for image, found in enumerate(search(model, 2, options)):
        assert found[0].words == reference_beam_search(model, image, options)


@given(st.integers(0, 1000), st.lists(st.integers(0, 20), min_size=1, max_size=9), st.integers(1, 4), st.booleans())
def test_a_batch_gives_what_its_images_give_alone(seed: int, batch: list[int], beam: int, consensus: bool) -> None:
    model = TableModel(12, seed, dtype=np.float32)
    options = DecodingOptions(beam_size=beam, num_captions=min(beam, 3), max_length=8, consensus=consensus)
    together = decode(model, images(21)[batch], options, SPECIAL)
    for image, found in zip(batch, together, strict=True):
        assert decode(model, images(21)[image : image + 1], options, SPECIAL) == [found]


@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions(beam_size=4, max_length=8),
        DecodingOptions(beam_size=1, max_length=8),
        DecodingOptions(temperature=1.0, num_captions=2, max_length=8),
    ],
)
def test_an_image_leaves_as_soon_as_its_captions_are_there(options: DecodingOptions) -> None:
    steps = []
    for image in range(9):
        decode(alone := TableModel(12, seed=3, end_bias=2.5), images(9)[image : image + 1], options, SPECIAL)
        steps.append(len(alone.asked))
    assert len(set(steps)) > 2
    decode(together := TableModel(12, seed=3, end_bias=2.5), images(9), options, SPECIAL)
    # Before the first word the captions that are searched for are one.
    first = options.width if options.sampling else 1
    expected = [(sum(own > step for own in steps), options.width if step else first) for step in range(max(steps))]
    assert together.asked == expected


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_beam_of_one_is_greedy(penalty: float) -> None:
    model = TableModel(10, seed=5)
    options = DecodingOptions(beam_size=1, max_length=12, length_penalty=penalty, **FREE)
    for image, found in enumerate(search(model, 30, options)):
        words: tuple[int, ...] = ()
        while len(words) < 12:
            logits = model.logits((image, START, *words))
            logits[[START, UNK]] = float("-inf")
            if int(logits.argmax()) == END:
                break
            words = (*words, int(logits.argmax()))
        assert found[0].words == words


def test_a_model_that_never_ends_still_gives_captions() -> None:
    model = TableModel(8, end_bias=-50.0)
    options = DecodingOptions(beam_size=3, num_captions=3, max_length=5, **FREE)
    (found,) = search(model, 1, options)
    assert len(found) == 3
    assert all(len(hypothesis.words) <= 5 for hypothesis in found)
    assert all(hypothesis.log_prob < -40 for hypothesis in found)  # the forced end is paid for


def test_more_captions_than_the_beam_widen_it() -> None:
    (found,) = search(TableModel(9), 1, DecodingOptions(beam_size=2, num_captions=5, max_length=4))
    assert len({hypothesis.words for hypothesis in found}) == 5


def test_fewer_captions_when_no_more_exist() -> None:
    (found,) = search(TableModel(4), 1, DecodingOptions(beam_size=9, num_captions=9, max_length=2, **FREE))
    assert [len(hypothesis.words) for hypothesis in sorted(found, key=lambda h: len(h.words))] == [0, 1, 2]


def test_log_probabilities_are_the_models_own() -> None:
    model = TableModel(9, seed=2)
    for image, found in enumerate(search(model, 3, DecodingOptions(num_captions=3, max_length=6))):
        for hypothesis in found:
            own = model.log_probs(image, hypothesis.words)
            assert [*hypothesis.word_log_probs, hypothesis.end_log_prob] == pytest.approx(own)
            assert hypothesis.log_prob == pytest.approx(sum(own))


def test_an_empty_batch_gives_nothing() -> None:
    assert search(TableModel(5), 0, DecodingOptions()) == []


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(1, 6))
def test_top_is_a_stable_sort(rows: list[list[int]], count: int) -> None:
    scores = np.array(rows, np.float32)
    scores[scores == 0] = -np.inf
    check_top(scores, count)


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(2, 40), st.integers(1000, 3000))
def test_top_is_a_stable_sort_of_long_rows_too(seed: int, count: int, values: int, length: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(values, size=(3, length)).astype(np.float32)
    scores[0, generator.random(length) < 0.99] = -np.inf
    scores[1, count // 2 :] = -np.inf
    check_top(scores, count)


def check_top(scores: Floats, count: int) -> None:
    values, places = top(scores, count)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    expected_values = np.take_along_axis(scores, expected, axis=1)
    np.testing.assert_array_equal(values, expected_values)
    np.testing.assert_array_equal(places, np.where(np.isfinite(expected_values), expected, 0))


def test_ties_go_to_the_lower_word_id() -> None:
    class Flat(TableModel):
        def logits(self, history: tuple[int, ...]) -> Floats:
            return np.zeros(self.vocabulary)

    options = DecodingOptions(beam_size=2, max_length=2, **(FREE | {"min_length": 2}))
    (found,) = search(Flat(6), 1, options)
    assert found[0].words == (3, 3)
