from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.decoding.beam import Hypothesis
from captioner.decoding.filters import Floats
from captioner.decoding.options import DecodingOptions
from captioner.decoding.sampling import uniforms
from captioner.decoding.search import decode
from tests.decoding.fakes import END, SPECIAL, START, UNK, TableModel, images, log_softmax

FREE = {"no_repeat_ngram": 0, "no_repeat_word": False, "min_length": 0}
DRAWS = 4000
# 99.99th percentile of the chi-square distribution for 1 to 9 degrees of freedom
CRITICAL = [15.14, 18.42, 21.11, 23.51, 25.74, 27.86, 29.88, 31.83, 33.72]


def first_words(model: TableModel, options: DecodingOptions) -> Counter[int]:
    (found,) = decode(model, images(1), options, SPECIAL)
    return Counter(hypothesis.words[0] if hypothesis.words else END for hypothesis in found)


def chi_square(counts: Counter[int], probs: dict[int, float]) -> float:
    return sum((counts[word] - DRAWS * p) ** 2 / (DRAWS * p) for word, p in probs.items())


def softmax(logits: Floats) -> Floats:
    return np.exp(log_softmax(logits))


def next_word_probs(model: TableModel, temperature: float = 1.0) -> dict[int, float]:
    logits = model.logits((0, START)) / temperature
    logits[[START, UNK]] = -np.inf
    return {word: float(p) for word, p in enumerate(softmax(logits)) if p > 0}


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_frequencies_follow_the_models_probabilities(temperature: float, seed: int) -> None:
    model = TableModel(8, seed, scale=1.0)
    options = DecodingOptions(temperature=temperature, num_captions=DRAWS, max_length=1, seed=seed, **FREE)
    probs = next_word_probs(model, temperature)
    assert chi_square(first_words(model, options), probs) < CRITICAL[len(probs) - 2]


def test_second_words_follow_the_models_probabilities_too() -> None:
    model = TableModel(6, seed=1, scale=1.0)
    options = DecodingOptions(temperature=1.0, num_captions=DRAWS, max_length=4, **FREE)
    (found,) = decode(model, images(1), options, SPECIAL)
    pairs = Counter(((*h.words, END, END))[:2] for h in found)
    first = next_word_probs(model)
    for word, count in Counter({w: c for (w, _), c in pairs.items() if w != END}).items():
        total = sum(c for (w, _), c in pairs.items() if w == word)
        logits = model.logits((0, START, word))
        logits[[START, UNK]] = -np.inf
        probs = softmax(logits)
        expected = {other: float(p) * total for other, p in enumerate(probs) if p > 0}
        statistic = sum((pairs[(word, other)] - e) ** 2 / e for other, e in expected.items())
        assert statistic < CRITICAL[len(expected) - 2]
        assert count > 0
        assert first[word] > 0


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_top_k_draws_from_the_k_best_words_only(top_k: int) -> None:
    model = TableModel(9, seed=4, scale=1.0)
    probs = next_word_probs(model)
    best = sorted(probs, key=lambda word: -probs[word])[:top_k]
    counts = first_words(model, DecodingOptions(top_k=top_k, num_captions=DRAWS, max_length=1, **FREE))
    kept = {word: probs[word] / sum(probs[other] for other in best) for word in best}
    assert set(counts) == set(best)
    if top_k > 1:
        assert chi_square(counts, kept) < CRITICAL[top_k - 2]


@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.8])
def test_top_p_draws_from_the_smallest_set_that_holds_the_share(top_p: float) -> None:
    model = TableModel(9, seed=6, scale=1.0)
    probs = next_word_probs(model)
    nucleus: list[int] = []
    for word in sorted(probs, key=lambda word: -probs[word]):
        if sum(probs[other] for other in nucleus) >= top_p:
            break
        nucleus.append(word)
    counts = first_words(model, DecodingOptions(top_p=top_p, num_captions=DRAWS, max_length=1, **FREE))
    assert set(counts) == set(nucleus)


def draw(batch: Floats, seeds: list[int], **options: object) -> list[list[Hypothesis]]:
    wanted = DecodingOptions(temperature=1.0, **options)  # type: ignore[arg-type]
    return decode(TableModel(20, seed=2), batch, wanted, SPECIAL, seeds)


def test_captions_do_not_depend_on_the_batch() -> None:
    seeds = list(range(100, 107))
    together = draw(images(7), seeds, num_captions=3)
    for image, seed in enumerate(seeds):
        assert draw(images(7)[image : image + 1], [seed], num_captions=3) == [together[image]]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.sampled_from([{}, {"top_k": 5}, {"top_p": 0.9}]))
def test_captions_do_not_depend_on_the_images_beside(batch: list[int], cut: dict[str, float]) -> None:
    model = TableModel(20, seed=2, dtype=np.float32)
    options = DecodingOptions(temperature=1.5, num_captions=3, max_length=8, **cut)  # type: ignore[arg-type]
    together = decode(model, images(21)[batch], options, SPECIAL, batch)
    for image, found in zip(batch, together, strict=True):
        assert decode(model, images(21)[image : image + 1], options, SPECIAL, [image]) == [found]


@settings(max_examples=20)
@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(1, 5), st.integers(1, 40))
def test_a_seed_gives_the_numbers_that_torch_gives(seed: int, rows: int, steps: int) -> None:
    import torch

    generator = torch.Generator().manual_seed(seed)
    expected = torch.rand(rows, steps, dtype=torch.float64, generator=generator).numpy()
    np.testing.assert_array_equal(uniforms(seed, (rows, steps)), expected)


def test_numbers_of_a_seed_stay_as_they_are() -> None:
    assert uniforms(0, (3,)).tolist() == [0.9700530018065531, 0.707819864399788, 0.45938294312745087]
    assert uniforms(1 << 32, (3,)).tolist() == uniforms(0, (3,)).tolist()


def test_probabilities_that_are_not_numbers_still_give_captions() -> None:
    class Broken(TableModel):
        def logits(self, history: tuple[int, ...]) -> Floats:
            return np.full(self.vocabulary, np.nan)

    for cut in ({}, {"top_k": 3}, {"top_p": 0.5}):
        options = DecodingOptions(temperature=1.0, num_captions=2, max_length=3, **cut)  # type: ignore[arg-type]
        (found,) = decode(Broken(9), images(1), options, SPECIAL)
        assert [len(each.words) <= 3 for each in found] == [True, True]


def test_the_first_captions_do_not_depend_on_how_many_are_drawn() -> None:
    assert draw(images(1), [5], num_captions=2) == [draw(images(1), [5], num_captions=6)[0][:2]]


def test_another_seed_gives_other_captions() -> None:
    assert draw(images(1), [1], num_captions=5) != draw(images(1), [2], num_captions=5)


def test_a_temperature_near_zero_is_greedy() -> None:
    model = TableModel(12, seed=8)
    (found,) = decode(model, images(1), DecodingOptions(temperature=1e-4, max_length=6, **FREE), SPECIAL)
    history: tuple[int, ...] = (0, START)
    for word in found[0].words:
        logits = model.logits(history)
        logits[[START, UNK]] = -np.inf
        assert word == int(logits.argmax())
        history = (*history, word)


def test_log_probabilities_are_those_without_temperature_and_cut() -> None:
    model = TableModel(9, seed=3)
    options = DecodingOptions(temperature=0.5, top_k=3, num_captions=4, max_length=5)
    (found,) = decode(model, images(1), options, SPECIAL)
    for hypothesis in found:
        own = model.log_probs(0, hypothesis.words)
        assert [*hypothesis.word_log_probs, hypothesis.end_log_prob] == pytest.approx(own)
        assert hypothesis.log_prob == pytest.approx(sum(own))
