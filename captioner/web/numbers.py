"""Probabilities in words that need no logarithm."""

from __future__ import annotations

import math

_SCALE = (("quintillion", 18), ("quadrillion", 15), ("trillion", 12), ("billion", 9), ("million", 6))


def percent(probability: float) -> str:
    """A probability as percentage with two digits that count.

    >>> percent(0.634), percent(0.0423), percent(0.0002)
    ('63 %', '4.2 %', '< 0.1 %')
    """
    value = 100 * probability
    if value < 0.1:
        return "< 0.1 %"
    if value < 9.95:
        return f"{value:.1f} %"
    return f"{min(value, 99 if probability < 1 else 100):.0f} %"


def one_in(log_prob: float) -> str:
    """A small probability, given by its natural logarithm, as "1 in N".

    >>> one_in(-7.85), one_in(-21.2)
    ('1 in 2,566', '1 in 1.6 billion')
    """
    digits = -log_prob / math.log(10)
    if digits >= _SCALE[0][1] + 3:
        return f"1 in 10^{digits:.0f}"
    odds = math.exp(-log_prob)
    for name, power in _SCALE:
        if digits >= power:
            return f"1 in {odds / 10**power:.1f} {name}"
    return f"1 in {odds:,.0f}" if odds >= 10 else f"1 in {odds:.1f}"


def times(log_ratio: float) -> str:
    """How many times as probable, given the natural logarithm of the ratio (at least 0).

    >>> times(0.02), times(2.5), times(30.0)
    ('about as', '12 times as', '10.7 trillion times as')
    """
    if log_ratio < math.log(1.1):
        return "about as"
    if log_ratio < math.log(10):
        return f"{math.exp(log_ratio):.1f} times as"
    return f"{one_in(-log_ratio).removeprefix('1 in ')} times as"
