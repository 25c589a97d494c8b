"""How often the photos of each data set are seen in an epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from captioner.errors import OptionError


class Quota(NamedTuple):
    """A data set's part in an epoch.

    Attributes:
        size: training photos that it has.
        share: photos of it that an epoch shows; some are left out, or seen again, if the two differ.
    """

    size: int
    share: int


def parse_proportions(text: str) -> tuple[float, ...]:
    """Numbers like ``2:1``, one for each data set.

    Raises:
        OptionError: they are not that, or not above 0.
    """
    try:
        proportions = tuple(map(float, text.split(":")))
    except ValueError:
        proportions = ()
    if not proportions or not all(0 < number < math.inf for number in proportions):
        raise OptionError(f"--proportions must be numbers above 0 such as 2:1, not {text!r}")
    return proportions


def quotas(sizes: Sequence[int], proportions: Sequence[float]) -> list[Quota]:
    """Shares in these proportions that add up to an epoch of all photos, each rounded down or up.

    Args:
        sizes: training photos of each data set.
        proportions: of the data sets.

    Raises:
        OptionError: there are not as many proportions as data sets.
    """
    if len(sizes) != len(proportions):
        raise OptionError(
            f"--proportions has {len(proportions)} numbers for {len(sizes)} data sets; give one for each"
        )
    ends = [sum(proportions[: place + 1]) / sum(proportions) for place in range(len(sizes))]
    bounds = [0, *(round(end * sum(sizes)) for end in ends)]
    return [Quota(size, end - start) for size, start, end in zip(sizes, bounds, bounds[1:], strict=False)]
