"""How varied a set of captions is: cheap figures that show a model which says the same of every photo."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence


@dataclass(frozen=True)
class Diversity:
    """Figures about the captions alone, without their references.

    Attributes:
        distinct_1: different words divided by all words (Li et al. 2016, "A Diversity-Promoting Objective
            Function", section 5).
        distinct_2: the same of pairs of neighbouring words.
        vocabulary: number of different words used.
        mean_length: words in a caption, on average.
        distinct_captions: share of different captions among all.
        unseen: share of captions that are no training caption; None where no training captions were given.
    """

    distinct_1: float
    distinct_2: float
    vocabulary: int
    mean_length: float
    distinct_captions: float
    unseen: float | None = None


def diversity(
    captions: Collection[Sequence[str]], training_captions: Iterable[Sequence[str]] | None = None
) -> Diversity:
    """Measures how varied captions are.

    Args:
        captions: words of each caption, at least one caption.
        training_captions: words of each caption that the model was trained on.
    """
    words = [word for caption in captions for word in caption]
    pairs = [pair for caption in captions for pair in pairwise(caption)]
    sentences = [tuple(caption) for caption in captions]
    unseen = None
    if training_captions is not None:
        seen = {tuple(caption) for caption in training_captions}
        unseen = sum(sentence not in seen for sentence in sentences) / len(sentences)
    return Diversity(
        distinct_1=_share_of_distinct(words),
        distinct_2=_share_of_distinct(pairs),
        vocabulary=len(set(words)),
        mean_length=len(words) / len(sentences),
        distinct_captions=_share_of_distinct(sentences),
        unseen=unseen,
    )


def _share_of_distinct(items: Sequence[object]) -> float:
    return len(set(items)) / len(items) if items else 0.0
