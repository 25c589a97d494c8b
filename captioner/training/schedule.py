"""The learning rate over a run."""

from __future__ import annotations

import math


def learning_rate(step: int, total: int, highest: float, warmup: float) -> float:
    """Linear rise over the first share of the steps, then a cosine fall to zero.

    Loshchilov and Hutter 2017 ("SGDR"), eq. 5, without restarts; warm-up as in Goyal et al. 2017.

    Args:
        step: steps taken before this one.
        total: steps of the whole run.
        highest: rate at the end of the rise.
        warmup: share of the steps in which the rate rises.
    """
    rise = warmup * total
    if step < rise:
        return highest * (step + 1) / (math.ceil(rise) + 1)
    return highest * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, total - rise)))
