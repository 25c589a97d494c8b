"""What training asks of photos, wherever their features come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captioner.datasets import Record


class PhotoFeatures(Protocol):
    """Some photos, or vectors in their place, and the features that a decoder sees of them."""

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """A number for each photo: the same for photos of the same bytes, -1 for a broken one."""

    @property
    def digests(self) -> Sequence[str]:
        """SHA-256 of the bytes of each photo; empty if it cannot be read."""

    @property
    def broken(self) -> Mapping[int, str]:
        """Why photos are broken, by their position."""

    def fetch(self, photos: Sequence[int], device: torch.device) -> Tensor:
        """Features of whole photos, by their position: float32 ``(photos, regions, channels)``."""


class PhotoStore(Protocol):
    """Makes features of the photos of a run."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(regions, channels)`` of a photo."""

    @property
    def name(self) -> str:
        """Tells features of this store from those of another, beside the digests of the photos."""

    def features_of(self, records: Sequence[Record]) -> PhotoFeatures:
        """Look at the photos of records, any of which may be broken."""
