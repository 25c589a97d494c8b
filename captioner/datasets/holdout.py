"""Which images are held out for validation where a data set has no splits of its own."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEAST = 2  # the CIDEr of a single image is always 0


def held_out(names: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """Choose a seeded share of some images.

    A digest of seed and name ranks them, so that the choice does not depend on their order. Unless the share
    is 0, at least two images are held out (one of two or three), and at least one is left.

    Args:
        names: the images, each once.
        share: at least 0 and below 1.
        seed: chooses which.
    """
    least = 1 if len(names) < 2 * _LEAST else _LEAST
    count = min(max(least, round(share * len(names))), len(names) - 1) if share and names else 0
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return frozenset(ranked[:count])
