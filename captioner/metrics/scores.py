"""What an evaluation found: figures of the set and of each photo, and the numbers they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from captioner.metrics.bleu import STATISTICS, bleu

if TYPE_CHECKING:
    import numpy.typing as npt

    from captioner.datasets.records import ImageId
    from captioner.metrics.degeneration import Degeneration
    from captioner.metrics.diversity import Diversity

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")


def corpus_figures(totals: npt.NDArray[np.float64], images: int) -> npt.NDArray[np.float64]:
    """Turns sums over photos into the figures named by ``METRICS``.

    Args:
        totals: (..., 12) the ten numbers of BLEU, ROUGE-L and CIDEr-D, summed over photos.
        images: how many photos were summed.

    Returns:
        (..., 6) corpus BLEU, and the means of ROUGE-L and CIDEr-D.
    """
    return np.concatenate([bleu(totals[..., :STATISTICS]), totals[..., STATISTICS:] / images], axis=-1)


@dataclass(frozen=True)
class Scores:
    """The result of :func:`captioner.metrics.evaluate.score`.

    Attributes:
        ids: the photos, in the order of the rows below.
        statistics: (images, 12) for each photo, what its caption adds to the corpus figures.
        references: number of human captions used.
        frequencies: where CIDEr's document frequencies are from.
        diversity: how varied the captions are.
        degeneration: how broken they are.
    """

    ids: tuple[ImageId, ...]
    statistics: npt.NDArray[np.float64]
    references: int
    frequencies: str
    diversity: Diversity
    degeneration: Degeneration

    @property
    def images(self) -> int:
        """Number of photos scored."""
        return len(self.ids)

    @cached_property
    def figures(self) -> dict[str, float]:
        """Corpus figures by name, BLEU and ROUGE-L from 0 to 1, CIDEr from 0 to 10."""
        values = corpus_figures(self.statistics.sum(axis=0), self.images)
        return dict(zip(METRICS, values.tolist(), strict=True))

    @property
    def headline(self) -> dict[str, float]:
        """The two figures that may choose among models or options: BLEU-4 and CIDEr."""
        return {name: self.figures[name] for name in ("BLEU-4", "CIDEr")}

    @cached_property
    def per_image(self) -> dict[str, npt.NDArray[np.float64]]:
        """For each metric, (images,) the score of every photo taken alone, in the order of ``ids``."""
        return dict(zip(METRICS, corpus_figures(self.statistics, 1).T, strict=True))
