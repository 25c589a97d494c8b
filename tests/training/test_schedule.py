from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.training.optim import learning_rate


def _rates(total: int, warmup: float, highest: float = 1.0) -> list[float]:
    return [learning_rate(step, total, highest, warmup) for step in range(total)]


def test_it_rises_in_a_line_and_falls_as_a_cosine() -> None:
    rates = _rates(1000, 0.1, 2.0)
    assert rates[:100] == pytest.approx([2.0 * (step + 1) / 101 for step in range(100)])
    expected = [1 + math.cos(math.pi * (step - 100) / 900) for step in range(100, 1000)]
    assert rates[100:] == pytest.approx(expected)


def test_it_ends_near_zero() -> None:
    assert 0 < _rates(1000, 0.05)[-1] < 1e-5


def test_without_warm_up_it_starts_at_the_highest() -> None:
    assert _rates(100, 0.0)[0] == 1.0


@given(total=st.integers(1, 400), warmup=st.floats(0, 0.99))
def test_it_rises_then_falls_and_never_leaves_its_range(total: int, warmup: float) -> None:
    rates = _rates(total, warmup)
    top = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert all(before < after for before, after in pairwise(rates[: top + 1]))
    assert all(before >= after for before, after in pairwise(rates[top:]))
    assert top <= math.ceil(warmup * total)
