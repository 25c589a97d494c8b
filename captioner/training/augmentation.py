"""Chance in the images that an encoder is trained on.

What is changed must stay true to the captions. Nothing is cut off but margins, hues stay as they are,
because captions name colours, and an image is mirrored only where no caption says left or right.
"""

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from captioner.images import Preprocessing
from captioner.vocabulary import Vocabulary

_LEAST_AREA = 0.5  # share of the image; the 0.08 of Szegedy et al. 2015 would cut off what captions name
_MOST_ASPECT = 4 / 3
_COLOUR = 0.3  # brightness, contrast and saturation are changed by up to this share
_SIDE = re.compile(r"(?:^|-)(?:left|right)|clockwise$")  # also leftmost, right-hand, bottom-left; not upright


def mirrorable(captions: Sequence[Sequence[int]], vocabulary: Vocabulary) -> bool:
    """Whether captions stay true when their image is mirrored: none has a word for one side of it.

    Args:
        captions: ids, as the model learns them; a word that is unknown to it does no harm.
        vocabulary: their words.
    """
    words = (word for caption in captions for word in vocabulary.decode(caption))
    return not any(_SIDE.search(word) for word in words)


def augmented_pixels(
    image: Image.Image,
    preprocessing: Preprocessing,
    augment: str,
    chance: np.random.Generator,
    *,
    mirror: bool,
) -> npt.NDArray[np.uint8]:
    """An image as an encoder is to see it in training.

    Args:
        image: upright RGB, as ``open_image`` gives it.
        preprocessing: scales what is left of it.
        augment: ``none``; ``flip`` mirrors every second image; ``crop`` also takes a random part, at least
            half of the area, and changes brightness, contrast and saturation.
        chance: draws all that is random.
        mirror: whether the image may be mirrored, see :func:`mirrorable`.

    Returns:
        uint8 ``(size, size, 3)``.
    """
    if augment == "none":
        return preprocessing.pixels(image)
    mirrored = chance.random() < 0.5 and mirror  # drawn in any case: the rest does not depend on it
    if augment == "crop":
        image = image.crop(random_box(image.size, chance))
    pixels = preprocessing.pixels(image)
    if augment == "crop":
        pixels = _other_colours(pixels, chance)
    return np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels


def random_box(size: tuple[int, int], chance: np.random.Generator) -> tuple[int, int, int, int]:
    """A random part of an image, in pixels: left, top, right, bottom.

    As in Szegedy et al. 2015, section 6: the share of the area is uniform, the aspect ratio is log-uniform,
    here relative to that of the image and always such that the part fits into it.
    """
    area = chance.uniform(_LEAST_AREA, 1)
    widest = math.log(min(_MOST_ASPECT, 1 / area))
    aspect = math.exp(chance.uniform(-widest, widest))
    box = []
    for side, share in zip(size, (math.sqrt(area * aspect), math.sqrt(area / aspect)), strict=True):
        length = min(side, max(1, round(side * share)))
        start = int(chance.integers(side - length + 1))
        box.append((start, start + length))
    (left, right), (top, bottom) = box
    return left, top, right, bottom


def _other_colours(pixels: npt.NDArray[np.uint8], chance: np.random.Generator) -> npt.NDArray[np.uint8]:
    image = Image.fromarray(pixels)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(chance.uniform(1 - _COLOUR, 1 + _COLOUR))
    return np.array(image)
