from __future__ import annotations

import hashlib

import pytest

from captioner.datasets.records import held_out


def names(count: int) -> list[str]:
    return [f"{number}.jpg" for number in range(count)]


@pytest.mark.parametrize(
    ("images", "held"),
    [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 2), (24, 2), (29, 2), (30, 2), (50, 2), (100, 5)],
)
def test_two_images_are_held_out_unless_that_leaves_less(images: int, held: int) -> None:
    assert len(held_out(names(images), 0.05, 0)) == held
    assert held_out(names(images), 0.0, 0) == frozenset()


@pytest.mark.parametrize("images", [30, 31, 100, 1000])
@pytest.mark.parametrize("seed", [0, 1])
def test_of_thirty_images_or_more_the_share_is_held_out_whatever_the_order(images: int, seed: int) -> None:
    ranked = sorted(names(images), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    assert held_out(names(images)[::-1], 0.05, seed) == frozenset(ranked[: round(0.05 * images)])


def test_a_large_share_leaves_one_image() -> None:
    assert len(held_out(names(5), 0.99, 0)) == 4
