"""The one way from an image to the numbers that an encoder sees; stored in every checkpoint as data."""

import math
import os
from collections.abc import Callable
from dataclasses import KW_ONLY, asdict, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from captioner.errors import OptionError
from captioner.images.open import DEFAULT_MAX_PIXELS, Box, Source, open_reduced, profile_of, read_file, to_rgb, upright
from captioner.options import check, option

if TYPE_CHECKING:
    import torch

Pixels = np.typing.NDArray[np.uint8]

_WHAT = "preprocessing"
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
_MAX_SIZE = 4096
_MAX_ASPECT = 20


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a square of pixels, and pixels become normalised numbers.

    Attributes:
        size: Side in pixels of the square that the encoder sees.
        resize: "squash" scales both sides to `size` and so keeps the whole image; "crop" scales the short
            side to `resize_size` and keeps the square of `size` in the middle.
        resize_size: Length in pixels of the short side before the crop; `size` unless given. Not for
            "squash".
        interpolation: Filter of the scaling; all but "nearest" average over the pixels that a smaller
            image merges (antialiasing).
        mean: Mean of red, green and blue on the scale 0 to 1, subtracted by `normalise`.
        std: Standard deviation of red, green and blue on the scale 0 to 1, divided by.

    Raises:
        OptionError: A value is impossible.
    """

    size: int = option(low=1, high=_MAX_SIZE)
    _: KW_ONLY
    resize: str = option("squash", choices=("squash", "crop"))
    resize_size: int | None = option(None, low=1, high=_MAX_SIZE)
    interpolation: str = option("bicubic", choices=_INTERPOLATIONS)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        check(self, _WHAT)
        for name in ("mean", "std"):
            colour = getattr(self, name)
            if not (isinstance(colour, tuple) and len(colour) == 3 and all(map(_is_finite, colour))):
                raise OptionError(f"{_WHAT}: {name} must be three finite numbers, not {colour!r}")
        if min(self.std) <= 0:
            raise OptionError(f"{_WHAT}: std must be above 0, not {self.std}")
        if self.resize == "squash":
            if self.resize_size is not None:
                raise OptionError(f"{_WHAT}: resize_size is for resize 'crop' only")
        elif self.resize_size is None:
            # Filled in, so that equal preprocessings compare equal.
            object.__setattr__(self, "resize_size", self.size)
        elif self.resize_size < self.size:
            raise OptionError(f"{_WHAT}: resize_size must be at least size, {self.size}, not {self.resize_size}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what `load` and `pixels` give."""
        return self.size, self.size, 3

    def load(self, source: Source, *, max_pixels: int = DEFAULT_MAX_PIXELS, max_bytes: float = math.inf) -> Pixels:
        """Open an image and scale it, within the limits of `open_image`.

        Returns:
            uint8 (size, size, 3), RGB.

        Raises:
            ImageError: As `open_image`.
        """
        short_side = self.resize_size or self.size
        return self._scaled(*open_reduced(source, max_pixels=max_pixels, max_bytes=max_bytes, min_size=short_side))

    def pixels(self, image: Image.Image) -> Pixels:
        """Scale an image; its EXIF orientation and its colour profile are applied, where it still has them.

        "crop" gives the pixels that torchvision's presets give, except that images more than 20 times as
        long as wide first lose their far ends, which the crop does not show.

        Returns:
            uint8 (size, size, 3), RGB.
        """
        turned, profile = upright(image), profile_of(image, b"", image.format or "")
        if profile != turned.info.get("icc_profile"):
            turned = turned.copy()
            turned.info["icc_profile"] = profile
        shown = to_rgb(turned)
        return self._scaled(shown, (0, 0, *shown.size))

    def _scaled(self, image: Image.Image, box: Box) -> Pixels:
        """Scale the part of an RGB image in which the picture lies."""
        interpolation = Image.Resampling[self.interpolation.upper()]
        if self.resize_size is None:
            return np.array(image.resize((self.size, self.size), interpolation, box))
        left, upper, right, lower = box = _without_far_ends(box)
        short = min(right - left, lower - upper)
        width, height = (int(self.resize_size * side / short) for side in (right - left, lower - upper))
        scaled = image.resize((width, height), interpolation, box)
        left, top = (round((side - self.size) / 2) for side in scaled.size)
        return np.array(scaled.crop((left, top, left + self.size, top + self.size)))

    def normalise(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """Turn pixels into the encoder's input: (pixels / 255 - mean) / std.

        Args:
            pixels: uint8 (batch, size, size, 3).

        Returns:
            float32 (batch, 3, size, size) on the same device, in channels-last memory order.
        """
        channels = pixels.permute(0, 3, 1, 2).float() / 255
        mean, std = (channels.new_tensor(colour).view(1, 3, 1, 1) for colour in (self.mean, self.std))
        return (channels - mean) / std

    def to_dict(self) -> dict[str, object]:
        """Return plain values that JSON can hold; `from_dict` reads them."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, data: object) -> "Preprocessing":
        """Rebuild from what `to_dict` gave.

        Raises:
            OptionError: A key is missing or unknown, or a value has the wrong type or is impossible.
        """
        names = {item.name for item in fields(cls)}
        if not isinstance(data, dict) or set(data) != names:
            raise OptionError(f"{_WHAT}: must be a mapping with the keys {', '.join(sorted(names))}")
        colours = {key: tuple(data[key]) for key in ("mean", "std") if isinstance(data[key], list)}
        return cls(**{**data, **colours})


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _without_far_ends(box: Box) -> Box:
    """Leave out the ends of a very long image: scaled whole, 1 x 100,000 pixels become 256 x 25,600,000."""
    left, upper, right, lower = box
    longest = _MAX_ASPECT * min(right - left, lower - upper)
    across, down = (max(0, side - longest) // 2 for side in (right - left, lower - upper))
    return left + across, upper + down, right - across, lower - down


@dataclass(frozen=True)
class Preprocessings:
    """Preprocessings that take turns on an image; their pixels follow each other in one row of bytes.

    Attributes:
        members: At least one.
    """

    members: tuple[Preprocessing, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what `load` and `pixels` give."""
        return (sum(math.prod(member.shape) for member in self.members),)

    def load(self, source: Source, *, max_pixels: int = DEFAULT_MAX_PIXELS, max_bytes: float = math.inf) -> Pixels:
        """Open an image and scale it for each member, as the member alone would.

        Returns:
            uint8 array of `shape`.

        Raises:
            ImageError: As `open_image`.
        """
        if not isinstance(source, str | bytes | os.PathLike) and not source.seekable():
            source = read_file(source, max_pixels=max_pixels)  # it can be read only once
        return self._packed(lambda member: member.load(source, max_pixels=max_pixels, max_bytes=max_bytes))

    def pixels(self, image: Image.Image) -> Pixels:
        """Scale an upright image for each member.

        Returns:
            uint8 array of `shape`.
        """
        return self._packed(lambda member: member.pixels(image))

    def _packed(self, scale: Callable[[Preprocessing], Pixels]) -> Pixels:
        return np.concatenate([scale(member).ravel() for member in self.members])
