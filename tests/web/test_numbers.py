from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner import html
from captioner.web import render
from captioner.web.render import odds, percent, times


def test_the_examples() -> None:
    assert doctest.testmod(render).failed == doctest.testmod(html).failed == 0


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (1.0, "100 %"),
        (0.9999, "99 %"),
        (0.0995, "10 %"),
        (0.09944, "9.9 %"),
        (0.001, "0.1 %"),
        (0, "< 0.1 %"),
    ],
)
def test_percentages(probability: float, text: str) -> None:
    assert percent(probability) == text


@given(st.floats(-5000, 0))
def test_any_log_probability_is_told_shortly(log_prob: float) -> None:
    assert 0 < len(odds(log_prob)) < 25


@given(st.floats(-20, 0))
def test_small_odds_are_right(log_prob: float) -> None:
    text = odds(log_prob).replace(",", "")
    value, _, unit = text.partition(" ")
    scale = {"": 1, "million": 1e6, "billion": 1e9}[unit]
    assert float(value) * scale == pytest.approx(math.exp(-log_prob), rel=0.06)


@given(st.floats(0, 5000))
def test_any_ratio_is_told_shortly(ratio: float) -> None:
    assert times(ratio).endswith(" as")
    assert len(times(ratio)) < 40
