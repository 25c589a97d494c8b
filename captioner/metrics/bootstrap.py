"""How far a figure would move with other images of the same kind: the bootstrap over images.

Efron 1979, "Bootstrap Methods: Another Look at the Jackknife"; the paired comparison follows Koehn 2004,
"Statistical Significance Tests for Machine Translation Evaluation". Each resample draws as many images as
there are, with replacement, and computes every figure anew from the sums over the images drawn; CIDEr keeps
the document frequencies of the whole set.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from captioner.errors import EvaluationError
from captioner.metrics.evaluate import METRICS, Scores, corpus_figures

_PERCENTILES = (2.5, 97.5)
_DRAWS_AT_ONCE = 1_000_000  # bounds the memory: 8 bytes each, a few times over


class Interval(NamedTuple):
    """The middle 95 % of the resampled figures."""

    low: float
    high: float


class Difference(NamedTuple):
    """How one metric differs between two sets of captions of the same images.

    Attributes:
        first: figure of the first set.
        second: figure of the second set.
        difference: second minus first.
        interval: 95 % interval of the difference.
        p_value: how often a difference at least this large, either way, comes about by chance.
    """

    first: float
    second: float
    difference: float
    interval: Interval
    p_value: float


def intervals(scores: Scores, resamples: int, seed: int) -> dict[str, Interval]:
    """Return the 95 % interval of every metric.

    Args:
        scores: what was found on the whole set.
        resamples: number of resamples, at least 1; 1000 is usual.
        seed: of the draws; the same seed gives the same intervals.
    """
    figures = _resampled(scores.statistics, resamples, seed)
    bounds = np.percentile(figures, _PERCENTILES, axis=0)
    return {name: Interval(*bounds[:, column].tolist()) for column, name in enumerate(METRICS)}


def compare(first: Scores, second: Scores, resamples: int, seed: int) -> dict[str, Difference]:
    """Compare two sets of captions by the paired bootstrap: both are judged on the same draws of images.

    Args:
        first: the set to start from.
        second: the set that may be better.
        resamples: number of resamples, at least 1.
        seed: of the draws.

    Raises:
        EvaluationError: the two are not of the same images.
    """
    if set(first.ids) != set(second.ids):
        raise EvaluationError("the two sets of captions are not of the same images")
    places = {image_id: place for place, image_id in enumerate(second.ids)}
    aligned = second.statistics[[places[image_id] for image_id in first.ids]]
    both = _resampled(np.stack([first.statistics, aligned], axis=1), resamples, seed)
    drawn = both[:, 1] - both[:, 0]
    bounds = np.percentile(drawn, _PERCENTILES, axis=0)
    differences = {}
    for column, name in enumerate(METRICS):
        figures = first.figures[name], second.figures[name]
        difference = figures[1] - figures[0]
        # Moving the resampled differences to a mean of 0 shows how they would spread if there were none.
        chance = np.abs(drawn[:, column] - drawn[:, column].mean()) >= abs(difference)
        p_value = (1 + int(chance.sum())) / (1 + resamples)
        interval = Interval(*bounds[:, column].tolist())
        differences[name] = Difference(*figures, difference, interval, p_value)
    return differences


def _resampled(statistics: npt.NDArray[np.float64], resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """Return (resamples, ..., 6) figures of resamples of (images, ..., 12) statistics."""
    images = len(statistics)
    flat = statistics.reshape(images, -1)
    totals = np.concatenate([counts @ flat for counts in _draws(images, resamples, seed)])
    return corpus_figures(totals.reshape(resamples, *statistics.shape[1:]), images)


def _draws(images: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """Yield (some, images) how often each image is drawn, for all resamples in turn."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // images)
    for start in range(0, resamples, at_once):
        some = min(at_once, resamples - start)
        drawn = generator.integers(0, images, size=(some, images)) + images * np.arange(some)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=some * images)
        yield counts.reshape(some, images).astype(np.float64)
