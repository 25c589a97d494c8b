from __future__ import annotations

from collections import Counter

import pytest
import torch

from captioner.decoding.beam import Hypothesis
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from tests.decoding.fakes import END, SPECIAL, START, UNK, TableModel, images

pytestmark = pytest.mark.usefixtures("double")

FREE = {"no_repeat_ngram": 0, "no_repeat_word": False, "min_length": 0}
DRAWS = 4000
# 99.99th percentile of the chi-square distribution for 1 to 9 degrees of freedom
CRITICAL = [15.14, 18.42, 21.11, 23.51, 25.74, 27.86, 29.88, 31.83, 33.72]


def first_words(model: TableModel, options: DecodingOptions) -> Counter[int]:
    (found,) = decode(model, images(1), options, SPECIAL)
    return Counter(hypothesis.words[0] if hypothesis.words else END for hypothesis in found)


def chi_square(counts: Counter[int], probs: dict[int, float]) -> float:
    return sum((counts[word] - DRAWS * p) ** 2 / (DRAWS * p) for word, p in probs.items())


def next_word_probs(model: TableModel, temperature: float = 1.0) -> dict[int, float]:
    logits = model.logits((0, START)) / temperature
    logits[[START, UNK]] = float("-inf")
    return {word: float(p) for word, p in enumerate(logits.softmax(0)) if p > 0}


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
        logits[[START, UNK]] = float("-inf")
        probs = logits.softmax(0)
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


def draw(batch: torch.Tensor, seeds: list[int], **options: object) -> list[list[Hypothesis]]:
    wanted = DecodingOptions(temperature=1.0, **options)  # type: ignore[arg-type]
    return decode(TableModel(20, seed=2), batch, wanted, SPECIAL, seeds)


def test_captions_do_not_depend_on_the_batch() -> None:
    seeds = list(range(100, 107))
    together = draw(images(7), seeds, num_captions=3)
    for image, seed in enumerate(seeds):
        assert draw(images(7)[image : image + 1], [seed], num_captions=3) == [together[image]]


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
        logits[[START, UNK]] = float("-inf")
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
