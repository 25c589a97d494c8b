"""Several preprocessings of one picture, for encoders that each want their own square of pixels."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from captioner.images.opening import DEFAULT_MAX_PIXELS, Source, read_file
from captioner.images.preprocessing import Pixels, Preprocessing

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Preprocessings:
    """Preprocessings that take turns on a picture; what they make travels as one array.

    The pixels of a single one stay as they are. Those of several follow each other in one row of bytes.

    Attributes:
        members: at least one.
    """

    members: tuple[Preprocessing, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what `load` and `pixels` give."""
        if len(self.members) == 1:
            return self.members[0].shape
        return (sum(math.prod(member.shape) for member in self.members),)

    def load(self, source: Source, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Pixels:
        """Open a picture and scale it for each member, as the member alone would.

        Returns:
            uint8 array of `shape`.

        Raises:
            ImageError: As `open_image`.
        """
        if not isinstance(source, str | bytes | os.PathLike) and not source.seekable():
            source = read_file(source, max_pixels=max_pixels)  # it can be read only once
        return self._packed([member.load(source, max_pixels=max_pixels) for member in self.members])

    def pixels(self, image: Image.Image) -> Pixels:
        """Scale an upright picture for each member.

        Returns:
            uint8 array of `shape`.
        """
        return self._packed([member.pixels(image) for member in self.members])

    @staticmethod
    def _packed(parts: Sequence[Pixels]) -> Pixels:
        return parts[0] if len(parts) == 1 else np.concatenate([part.ravel() for part in parts])
