"""Which pictures are held out for validation where a data set has no splits of its own."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def held_out(names: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """A seeded share of some pictures.

    A digest of seed and name ranks them, so that the choice does not depend on their order. Unless the share
    is 0, at least one picture is held out, and at least one is left.

    Args:
        names: the pictures, each once.
        share: at least 0 and below 1.
        seed: chooses which.
    """
    count = min(max(1, round(share * len(names))), len(names) - 1) if share and names else 0
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return frozenset(ranked[:count])
