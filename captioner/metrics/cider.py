"""CIDEr-D as the COCO caption server computes it.

Vedantam, Zitnick, Parikh 2015, "CIDEr: Consensus-based Image Description Evaluation" (equations 1 to 4).
CIDEr-D is the variant with clipped counts and a Gaussian penalty on the difference in length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from captioner.metrics.frequencies import DocumentFrequencies
    from captioner.metrics.ngrams import Corpus, Floats

SIGMA = 6.0
SCALE = 10.0


def cider_d(corpus: Corpus, frequencies: DocumentFrequencies | None = None) -> Floats:
    """Computes CIDEr-D of each photo.

    Args:
        corpus: hypotheses and references.
        frequencies: in how many photos' references each n-gram occurs; those of the corpus unless given. In a
            corpus of a single photo every n-gram then has the weight 0, hence every caption the score 0.

    Returns:
        (images,) scores from 0 to 10; 1.0 is what tables in papers print as 100.
    """
    ngrams, images = corpus.ngrams, corpus.images
    # tf-idf (equation 1); the COCO code does not divide the term frequency by the length
    weights = ngrams.counts * _rarity(corpus, frequencies)[ngrams.columns]
    every = np.arange(len(weights))
    norms = np.sqrt(corpus.sum_by_order(ngrams.rows, every, weights**2))
    ours, theirs = corpus.shared
    clipped = np.minimum(weights[ours], weights[theirs]) * weights[theirs]
    products = corpus.sum_by_order(ngrams.rows[theirs], theirs, clipped)
    scales = norms[corpus.photos] * norms  # a hypothesis has the number of its photo as its row
    cosines = np.divide(products, scales, out=np.zeros_like(products), where=scales > 0)
    # The COCO code measures a caption by its bigrams: a caption of one word is as long as an empty one.
    lengths = ngrams.windows(2)
    penalty = np.exp(-((lengths[corpus.photos] - lengths) ** 2) / (2 * SIGMA**2))
    similarities = (cosines.mean(axis=1) * penalty)[images:]
    photos = corpus.photos[images:]
    return SCALE * np.bincount(photos, similarities, images) / np.bincount(photos, minlength=images)


def _rarity(corpus: Corpus, frequencies: DocumentFrequencies | None) -> Floats:
    """Returns (columns,) the inverse document frequency of each n-gram."""
    if frequencies is None:
        documents, counts = corpus.images, corpus.document_frequencies
    else:
        documents = frequencies.documents
        names = corpus.ngrams.names(np.arange(len(corpus.ngrams.orders)))
        counts = np.array([frequencies.counts.get(name, 1) for name in names], dtype=np.int64)
    # an n-gram that occurs in no reference counts as occurring in one
    rarity: Floats = np.log(documents) - np.log(np.maximum(1, counts))
    return rarity
