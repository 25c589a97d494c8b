from __future__ import annotations

from collections import Counter
from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import OptionError
from captioner.training.data import MixtureWeight, draw_images, epoch_batches, mixture_weights
from captioner.training.options import parse_proportions
from captioner.vocabulary import END, START

data_sets = st.lists(st.tuples(st.integers(1, 30), st.floats(0.1, 10)), min_size=1, max_size=4)


@given(data_sets)
def test_an_epoch_is_as_long_as_all_images_and_keeps_the_proportions(parts: list[tuple[int, float]]) -> None:
    sizes, proportions = zip(*parts, strict=True)
    found = mixture_weights(sizes, proportions)
    assert [quota.size for quota in found] == list(sizes)
    assert sum(quota.share for quota in found) == sum(sizes)
    for quota, proportion in zip(found, proportions, strict=True):
        assert abs(quota.share - sum(sizes) * proportion / sum(proportions)) <= 1


@given(data_sets, st.integers(0, 9))
def test_images_of_a_data_set_are_seen_equally_often(parts: list[tuple[int, float]], seed: int) -> None:
    sizes, proportions = zip(*parts, strict=True)
    found = mixture_weights(sizes, proportions)
    seen = Counter(draw_images(found, torch.Generator().manual_seed(seed)))
    ends = list(accumulate(sizes))
    assert set(seen) <= set(range(ends[-1]))
    for (size, share), end in zip(found, ends, strict=True):
        times = [seen[image] for image in range(end - size, end)]
        assert sum(times) == share
        assert max(times) - min(times) <= 1


def test_other_images_are_left_out_in_another_epoch_and_a_run_can_be_resumed() -> None:
    captions = [[[START, END]]] * 40
    parts = [MixtureWeight(30, 10), MixtureWeight(10, 30)]

    def order(epoch: int, start: int = 0) -> list[list[int]]:
        batches = epoch_batches(captions, 8, seed=1, epoch=epoch, start=start, mixture_weights=parts)
        return [batch.images for batch in batches]

    assert order(2, start=3) == order(2)[3:]
    first, second = ({image for batch in order(epoch) for image in batch} for epoch in (0, 1))
    assert {image for image in first if image < 30} != {image for image in second if image < 30}
    assert set(range(30, 40)) <= first & second


@pytest.mark.parametrize("text", ["", ":", "1:", "-1:2", "0", "nan:1", "1,2", "inf:1"])
def test_what_is_no_proportion_is_named(text: str) -> None:
    with pytest.raises(OptionError, match="`proportions` must be numbers above 0 such as 2:1"):
        parse_proportions(text)


def test_there_is_one_number_for_each_data_set() -> None:
    assert parse_proportions("2:0.5") == (2.0, 0.5)
    with pytest.raises(OptionError, match="`proportions` has 1 numbers for 2 data sets"):
        mixture_weights([3, 4], [1.0])
