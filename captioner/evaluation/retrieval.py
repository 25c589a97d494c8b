"""How good a model is at finding the image that a sentence was written about.

The protocol of Hodosh, Young and Hockenmaier 2013 ("Framing Image Description as a Ranking Task", JAIR 47,
section 5): each sentence is a query over all images, and what counts is the rank of its own image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from captioner.captioner import Captioner
from captioner.datasets.records import Record
from captioner.errors import DatasetError
from captioner.search.search import Doubles, Gallery, PrefixTree
from captioner.vocabulary import text_words

RECALLS = (1, 5, 10)


@dataclass(frozen=True)
class Retrieval:
    """The ranks that images got for their own sentences.

    Attributes:
        ranks: for each query, 1 plus how many other images fit it at least as well as its own: a model that
            finds all images alike gets the worst rank, not the best.
        dropped: how many words the model does not know; they were left out of the queries.
        shortened: how many queries had such words.
        broken: how many images could not be read and were left out.
    """

    ranks: np.typing.NDArray[np.int64]
    dropped: int = 0
    shortened: int = 0
    broken: int = 0

    def recall(self, most: int) -> float:
        """Share of queries whose image is among the first ``most``."""
        return float((self.ranks <= most).mean())

    @property
    def median_rank(self) -> float:
        """Median of the ranks."""
        return float(np.median(self.ranks))

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, recalls on a 0-1 scale."""
        recalls = {f"recall@{most}": self.recall(most) for most in RECALLS}
        return {
            "photos": len(self.ranks),
            **recalls,
            "median_rank": self.median_rank,
            "dropped_words": self.dropped,
            "shortened_queries": self.shortened,
        }


def retrieve_images(
    captioner: Captioner, records: Sequence[Record], *, cache: str | Path, skip_broken: bool = False
) -> Retrieval:
    """Search the images of a data set for each of them by its first caption.

    Args:
        captioner: the model, of one checkpoint.
        records: the images.
        cache: see :class:`captioner.search.search.Gallery`.
        skip_broken: whether images that cannot be read are left out instead of being an error.

    Raises:
        DatasetError: images are broken and must not be left out, or all are.
    """
    paths = [record.path for record in records]
    gallery = Gallery(captioner, paths, cache=cache)
    if gallery.broken and not skip_broken:
        raise DatasetError(
            f"{len(gallery.broken):,} of {len(records):,} images are broken: {next(iter(gallery.broken.values()))}",
            "give `skip_missing` to go on without them",
        )
    queries = [record.captions[0] for place, record in enumerate(records) if place not in gallery.broken]
    return replace(retrieve(gallery, queries), broken=len(gallery.broken))


def retrieve(gallery: Gallery, queries: Sequence[str]) -> Retrieval:
    """Search a gallery for each of its images; shows progress.

    Args:
        gallery: the images.
        queries: a sentence about each image, in the same order. Words that the model does not know are left
            out and counted.

    Raises:
        DatasetError: there is not one image.
    """
    if not gallery.paths:
        raise DatasetError("there is no image to search for: not one could be read")
    words = [text_words(query) for query in queries]
    known = [[word for word in of_query if word in gallery.vocabulary] for of_query in words]
    dropped = [len(before) - len(after) for before, after in zip(words, known, strict=True)]
    sentences = [gallery.vocabulary.encode(of_query) for of_query in known]
    steps = len(PrefixTree(sentences)) * len(sentences)
    with tqdm(total=steps, desc="searching", unit="step", unit_scale=True) as progress:
        log_probs = gallery.log_probs(sentences, on_progress=progress.update)
    return Retrieval(ranks(log_probs), sum(dropped), sum(count > 0 for count in dropped))


def ranks(log_probs: Doubles) -> np.typing.NDArray[np.int64]:
    """Rank of each query's own image, see :class:`Retrieval`.

    Args:
        log_probs: ``(queries, images)``; the image of a query has its position.
    """
    own = log_probs.diagonal()[:, None]
    found: np.typing.NDArray[np.int64] = (log_probs >= own).sum(axis=1)
    return found
