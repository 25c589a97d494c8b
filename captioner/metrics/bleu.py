"""Corpus BLEU as the COCO caption server computes it.

Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation" (equations 1 to 3),
with the server's two small constants, the closest reference length (the shorter one on a tie) and no
smoothing. Everything that BLEU needs to know about an image is ten whole numbers. Corpus BLEU is a function of
their sum, which makes the bootstrap a matter of adding rows.
"""

import numpy as np
import numpy.typing as npt

from captioner.metrics.ngrams import MAX_ORDER, Corpus, Integers

# correct 1..4, guessed 1..4, hypothesis length, closest reference length
STATISTICS = 2 * MAX_ORDER + 2

# The constants of the COCO code: a division by nothing gives (almost) nothing. They are part of the figure:
# a caption set without one matching 4-gram has a tiny BLEU-4 rather than 0.
_TINY = 1e-15
_SMALL = 1e-9


def bleu_statistics(corpus: Corpus) -> npt.NDArray[np.float64]:
    """Return the ten numbers by which each image enters BLEU.

    Returns:
        (images, 10) clipped matches of order 1 to 4, n-grams in the hypothesis of order 1 to 4, length of the
        hypothesis, length of the closest reference.
    """
    ngrams, images = corpus.ngrams, corpus.images
    ours, theirs = corpus.shared
    most = np.zeros_like(ngrams.counts)  # of an n-gram of a hypothesis in any one of the references
    np.maximum.at(most, ours, ngrams.counts[theirs])
    matched = np.flatnonzero(most)
    clipped = np.minimum(ngrams.counts[matched], most[matched])
    correct = corpus.sum_by_order(ngrams.rows[matched], matched, clipped)[:images]
    guessed = np.stack([ngrams.windows(order)[:images] for order in range(1, MAX_ORDER + 1)], axis=1)
    lengths = np.stack([ngrams.lengths[:images], _closest_lengths(corpus)], axis=1)
    return np.concatenate([correct, guessed, lengths], axis=1)


def _closest_lengths(corpus: Corpus) -> Integers:
    """Return (images,) the reference length closest to the hypothesis's, the shorter one on a tie."""
    owners, lengths = corpus.owners[corpus.images :], corpus.ngrams.lengths[corpus.images :]
    differences = np.abs(lengths - corpus.ngrams.lengths[owners])
    order = np.lexsort((lengths, differences, owners))
    return lengths[order][np.searchsorted(owners[order], np.arange(corpus.images))]


def bleu(statistics: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Compute BLEU-1 to BLEU-4 from statistics that may have been summed over images.

    Args:
        statistics: (..., 10) numbers of :func:`bleu_statistics`. Their sum over images gives corpus BLEU, a
            single row the BLEU of that image.

    Returns:
        (..., 4) BLEU-1 to BLEU-4, between 0 and 1.
    """
    values = np.asarray(statistics, dtype=np.float64)
    correct, guessed = values[..., :MAX_ORDER], values[..., MAX_ORDER : 2 * MAX_ORDER]
    ratio = (values[..., -2] + _TINY) / (values[..., -1] + _SMALL)
    products = np.cumprod((correct + _TINY) / (guessed + _SMALL), axis=-1)
    geometric_means = products ** (1.0 / np.arange(1, MAX_ORDER + 1))
    penalty = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    return np.asarray(geometric_means * penalty[..., None])
