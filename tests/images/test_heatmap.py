from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioner.images.draw import overlay


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.floats(1e-6, 1e3),
    st.integers(0, 1000),
)
def test_any_weights_light_a_image_of_any_size(
    rows: int, columns: int, size: tuple[int, int], scale: float, seed: int
) -> None:
    weights = np.random.default_rng(seed).random((rows, columns), dtype=np.float32)
    image = Image.new("RGB", size, (90, 120, 150))
    lit = overlay(image, weights)
    assert (lit.size, lit.mode) == (size, "RGB")
    scaled = np.int16(overlay(image, weights * np.float32(scale))) - np.int16(lit)
    assert np.abs(scaled).max() <= 2  # proportions alone count


def test_it_is_bright_where_the_weight_is_and_dark_elsewhere() -> None:
    weights = np.zeros((3, 4), np.float32)
    weights[0, 3] = 0.2
    lit = np.asarray(overlay(Image.new("RGB", (80, 60), (100, 100, 100)), weights)).mean(axis=2)
    brightest = np.unravel_index(lit.argmax(), lit.shape)
    assert brightest[0] < 20
    assert brightest[1] >= 60
    assert lit[40:, :40].max() < 40


def test_no_weight_at_all_leaves_the_image_in_the_dark() -> None:
    lit = overlay(Image.new("RGB", (8, 8), "white"), np.zeros((2, 2), np.float32))
    assert np.asarray(lit).max() < 80
