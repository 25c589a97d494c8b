from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from captioner.errors import EvaluationError
from captioner.metrics import evaluate as bootstrap
from captioner.metrics.coco import bleu
from captioner.metrics.evaluate import METRICS, Scores, compare, degeneration, diversity, intervals


def made_up(images: int, seed: int = 0, shift: float = 0.0) -> Scores:
    """Scores of captions of ten words, a share of them correct, without any text behind them."""
    generator = np.random.default_rng(seed)
    correct = np.sort(generator.integers(1, 8, size=(images, 4)), axis=1)[:, ::-1]
    rest = np.tile([10, 9, 8, 7, 10, 11], (images, 1))
    means = generator.normal(0.5 + shift, 0.1, size=(images, 2))
    statistics = np.concatenate([correct, rest, means], axis=1).astype(np.float64)
    return Scores(tuple(range(images)), statistics, 5 * images, "made up", diversity([["a"]]), degeneration([["a"]]))


def test_every_figure_lies_in_its_interval() -> None:
    scores = made_up(300)
    for name, (low, high) in intervals(scores, 500, seed=1).items():
        assert low < scores.figures[name] < high


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    scores = made_up(400)
    values = scores.per_image["CIDEr"]
    half = 1.96 * values.std() / np.sqrt(len(values))
    low, high = intervals(scores, 4000, seed=2)["CIDEr"]
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_resampled_bleu_is_that_of_the_images_drawn() -> None:
    scores = made_up(7)
    draws = np.concatenate(list(bootstrap._draws(7, 5, seed=3)))
    assert (draws.sum(axis=1) == 7).all()
    resampled = bootstrap._resampled(scores.statistics, 5, seed=3)
    for counts, figures in zip(draws, resampled, strict=True):
        drawn = np.repeat(scores.statistics, counts.astype(int), axis=0)
        np.testing.assert_allclose(figures[:4], bleu(drawn[:, :10].sum(axis=0)))
        np.testing.assert_allclose(figures[4:], drawn[:, 10:].mean(axis=0))


def test_drawing_in_small_portions_changes_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = np.concatenate(list(bootstrap._draws(10, 25, seed=4)))
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 30)
    np.testing.assert_array_equal(np.concatenate(list(bootstrap._draws(10, 25, seed=4))), at_once)


def test_the_seed_decides_the_interval() -> None:
    scores = made_up(50)
    assert intervals(scores, 100, seed=5) == intervals(scores, 100, seed=5)
    assert intervals(scores, 100, seed=5) != intervals(scores, 100, seed=6)


def test_one_image_has_no_spread() -> None:
    scores = made_up(1)
    for name, (low, high) in intervals(scores, 20, seed=0).items():
        assert low == high == pytest.approx(scores.figures[name])


def test_a_set_compared_with_itself_does_not_differ() -> None:
    scores = made_up(60)
    for difference in compare(scores, scores, 200, seed=0).values():
        assert (difference.difference, difference.interval, difference.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_a_clear_difference_has_a_small_p_value_and_its_direction() -> None:
    differences = compare(made_up(200, seed=1), made_up(200, seed=2, shift=0.2), 500, seed=0)
    cider = differences["CIDEr"]
    assert cider.p_value == pytest.approx(1 / 501)
    assert cider.difference == pytest.approx(cider.second - cider.first)
    assert 0 < cider.interval.low < cider.difference < cider.interval.high


def test_swapping_the_two_sets_turns_the_difference_round() -> None:
    first, second = made_up(80, seed=1), made_up(80, seed=2, shift=0.01)
    there, back = compare(first, second, 300, seed=0), compare(second, first, 300, seed=0)
    for name in METRICS:
        assert there[name].difference == -back[name].difference
        assert there[name].p_value == pytest.approx(back[name].p_value, abs=0.02)


def test_without_a_difference_p_values_are_spread_evenly() -> None:
    p_values = [
        compare(made_up(60, seed=2 * i), made_up(60, seed=2 * i + 1), 200, seed=i)["CIDEr"].p_value for i in range(100)
    ]
    assert 0.3 < np.mean(p_values) < 0.7
    assert sum(p < 0.05 for p in p_values) <= 15


def test_images_are_paired_by_id_not_by_order() -> None:
    scores = made_up(40)
    order = np.random.default_rng(0).permutation(40)
    shuffled = replace(scores, ids=tuple(order.tolist()), statistics=scores.statistics[order])
    for difference in compare(scores, shuffled, 100, seed=0).values():
        assert difference.interval == pytest.approx((0.0, 0.0), abs=1e-12)


def test_other_images_cannot_be_compared() -> None:
    with pytest.raises(EvaluationError, match="not of the same images"):
        compare(made_up(3), made_up(4), 10, seed=0)
