"""Weights of regions as light on a picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

_SHADE = 0.25  # of its light that a picture keeps where nobody looked
_GLOW = np.array([255.0, 190.0, 90.0])  # warm, so that bright and dark pictures both show it
_GLOWS = 0.35  # share of the glow where the weight is largest


def overlay(picture: Image.Image, weights: npt.NDArray[np.float32]) -> Image.Image:
    """A picture that is bright where weights are large, and dark elsewhere (as in Xu et al. 2015, figure 5).

    Args:
        picture: RGB.
        weights: ``(rows, columns)``, at least 0, laid over the whole picture. Only their proportions count.

    Returns:
        RGB, of the size of the picture.
    """
    small = Image.fromarray(np.uint8(255 * _shares(weights)), "L")
    heat = np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC), np.float32)[..., None] / 255
    lit = np.asarray(picture, np.float32) * (_SHADE + (1 - _SHADE) * heat)
    return Image.fromarray(np.uint8(lit + _GLOWS * heat * (_GLOW - lit)), "RGB")


def shade(weights: npt.NDArray[np.float32]) -> Image.Image:
    """The darkness alone, one pixel a region, for a page that stretches it over the picture.

    Args:
        weights: ``(rows, columns)``, at least 0. Only their proportions count.

    Returns:
        Black of more or less opacity, ``LA``.
    """
    darkness = np.uint8(255 * (1 - _SHADE) * (1 - _shares(weights)))
    return Image.fromarray(np.dstack((np.zeros_like(darkness), darkness)), "LA")


def _shares(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return weights / max(float(weights.max()), 1e-12)
