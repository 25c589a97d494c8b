from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioner.images import Preprocessing, open_image
from captioner.training.encoding import augmented_pixels, mirrorable, random_box
from captioner.training.options import AUGMENTATIONS
from captioner.vocabulary import UNKNOWN, Vocabulary, caption_words

SQUASH = Preprocessing(48, mean=(0.5,) * 3, std=(0.5,) * 3)
CROP = Preprocessing(48, resize="crop", resize_size=56, mean=(0.5,) * 3, std=(0.5,) * 3)


def _chance(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng((7, 3, seed))


@pytest.fixture
def image(images: list[Path]) -> Image.Image:
    return open_image(next(path for path in images if path.stem == "cat"))


@pytest.mark.parametrize("preprocessing", [SQUASH, CROP])
def test_none_is_the_image_as_it_will_be_seen_later(
    image: Image.Image, images: list[Path], preprocessing: Preprocessing
) -> None:
    path = next(path for path in images if path.stem == "cat")
    pixels = augmented_pixels(image, preprocessing, "none", _chance(), mirror=True)
    assert np.array_equal(pixels, preprocessing.pixels(image))
    assert np.abs(pixels.astype(int) - preprocessing.load(path)).mean() < 1


def test_flip_mirrors_every_second_image_and_changes_nothing_else(image: Image.Image) -> None:
    plain = SQUASH.pixels(image)
    mirrored = 0
    for seed in range(200):
        pixels = augmented_pixels(image, SQUASH, "flip", _chance(seed), mirror=True)
        if not np.array_equal(pixels, plain):
            assert np.array_equal(pixels, plain[:, ::-1])
            mirrored += 1
    assert 70 < mirrored < 130


@pytest.mark.parametrize("augment", ["flip", "crop"])
def test_a_image_that_must_not_be_mirrored_never_is(augment: str) -> None:
    # The left half is black, the right half white.
    image = Image.fromarray(np.repeat(np.array([[0] * 50 + [255] * 50], np.uint8), 100, 0)).convert("RGB")
    for seed in range(50):
        pixels = augmented_pixels(image, SQUASH, augment, _chance(seed), mirror=False).astype(float)
        assert pixels[:, :5].mean() < pixels[:, -5:].mean()


@pytest.mark.parametrize("augment", AUGMENTATIONS)
@pytest.mark.parametrize("preprocessing", [SQUASH, CROP])
def test_equal_chance_gives_equal_pixels(image: Image.Image, augment: str, preprocessing: Preprocessing) -> None:
    first, second, other = (
        augmented_pixels(image, preprocessing, augment, _chance(seed), mirror=True) for seed in (5, 5, 6)
    )
    assert (first.shape, first.dtype) == ((48, 48, 3), np.uint8)
    assert np.array_equal(first, second)
    if augment == "crop":
        assert not np.array_equal(first, other)


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), seed=st.integers(0, 1 << 30))
def test_what_is_left_of_a_image_lies_in_it_and_is_half_of_it_at_least(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = random_box((width, height), np.random.default_rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    # Whole pixels take their toll on small images.
    assert (right - left + 1) * (bottom - top + 1) >= 0.5 * width * height
    aspect = (right - left) / width / ((bottom - top) / height)
    if min(width, height) > 500:
        assert 0.74 < aspect < 1.35


def test_parts_are_of_all_sizes_and_lie_everywhere() -> None:
    boxes = np.array([random_box((1000, 1000), np.random.default_rng(seed)) for seed in range(2000)])
    left, top, right, bottom = boxes.T
    areas = (right - left) * (bottom - top) / 1e6
    assert np.histogram(areas, bins=5, range=(0.5, 1))[0].min() > 320  # uniform: 400 in each
    for near, far in ((left, 1000 - right), (top, 1000 - bottom)):
        assert abs(near.mean() - far.mean()) < 15
    aspects = np.log((right - left) / (bottom - top))
    assert abs(aspects.mean()) < 0.02
    assert np.abs(aspects).max() > 0.2


def test_colours_change_in_light_and_strength_but_keep_their_names() -> None:
    colour = (180, 60, 50)
    image = Image.new("RGB", (64, 64), colour)
    hue = colorsys.rgb_to_hsv(*colour)[0]
    seen = set()
    for seed in range(50):
        pixels = augmented_pixels(image, SQUASH, "crop", _chance(seed), mirror=True)
        changed = tuple(int(value) for value in pixels[24, 24])
        turned = abs(colorsys.rgb_to_hsv(*changed)[0] - hue)
        assert min(turned, 1 - turned) < 0.03
        seen.add(changed)
    assert len(seen) > 45


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog runs upright over the bright grass", True),
        ("A dog leaps; a copyright notice", True),
        ("The dog on the left runs", False),
        ("A man turns Right.", False),
        ("A right-handed man", False),
        ("A girl in the bottom-left corner", False),
        ("The leftmost dog", False),
        ("Children run clockwise", False),
        ("Children run counterclockwise", False),
    ],
)
def test_what_is_told_of_sides_must_stay_true(caption: str, expected: bool) -> None:
    vocabulary = Vocabulary.build([caption])
    ids = vocabulary.encode(caption_words(caption))
    assert mirrorable([ids], vocabulary) is expected
    harmless = vocabulary.encode(["a"])
    assert mirrorable([harmless, ids, harmless], vocabulary) is expected


def test_a_word_that_the_model_does_not_know_teaches_it_nothing_wrong() -> None:
    vocabulary = Vocabulary.build(["a dog"])
    assert vocabulary.encode(["left"]) == [UNKNOWN]
    assert mirrorable([vocabulary.encode(["a", "dog", "left"])], vocabulary)
