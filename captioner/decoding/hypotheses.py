"""What a way of choosing the next words is given and gives, and the choice of one caption among those found.

A strategy (:class:`captioner.decoding.beam.BeamSearch`, :class:`captioner.decoding.sampling.Sampling`) begins with
``width`` captions for each image, as rows ``image * width + slot``, and ends with ``num_captions`` hypotheses, or fewer
if no more exist.

The most probable caption is one sentence among many that are nearly as probable; what most of them say is
more likely right. :func:`by_mbr` orders the captions c by the similarity that is expected of each with a caption
drawn from all of them, ``sum over d of P(d) GLEU(c, d)``: minimum Bayes risk with the loss ``1 - GLEU``
(Kumar & Byrne 2004, "Minimum Bayes-Risk Decoding for Statistical Machine Translation"; for captions Devlin
et al. 2015, "Exploring Nearest Neighbor Approaches for Image Captioning", the consensus caption). GLEU
(Wu et al. 2016, "Google's Neural Machine Translation System", section 5) counts the sequences of 1 to 4 words
that two captions share, as a share of those of the caption that has more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import NamedTuple

from torch import Tensor

NEVER = -math.inf
"""Log-probability of what cannot be."""


@dataclass(frozen=True)
class Hypothesis:
    """A finished caption as ids.

    Attributes:
        words: ids, without ``<start>`` and ``<end>``.
        word_log_probs: natural log-probability of each word given those before it and the image.
        end_log_prob: that of ending here.
        log_prob: log P(caption | image), the sum of all these.
        score: what n-best lists are ordered by.
    """

    words: tuple[int, ...]
    word_log_probs: tuple[float, ...]
    end_log_prob: float
    log_prob: float
    score: float


class Choice(NamedTuple):
    """Which rows go on, and with which word: two tensors ``(rows,)``, fewer than before if some ended."""

    parents: Tensor
    words: Tensor


def hypotheses(words: Tensor, history: Tensor, lengths: Tensor, scores: Tensor) -> list[list[Hypothesis]]:
    """Finished captions out of tensors; a score of minus infinity means that there is none.

    Args:
        words: ``(images, captions, time)`` ids.
        history: ``(images, captions, time)`` log-probability of each word, then that of the end.
        lengths: ``(images, captions)`` words without the end.
        scores: ``(images, captions)``.
    """

    def hypothesis(ids: list[int], log_probs: list[float], length: int, score: float) -> Hypothesis:
        *of_words, end = log_probs[: length + 1]
        return Hypothesis(tuple(ids[:length]), tuple(of_words), end, sum(of_words) + end, score)

    images = zip(words.tolist(), history.tolist(), lengths.tolist(), scores.tolist(), strict=True)
    return [[hypothesis(*each) for each in zip(*image, strict=True) if each[3] != NEVER] for image in images]


def by_mbr(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Order captions of one image by their expected GLEU, which becomes their score.

    A caption counts by its probability as the search sees it: ``exp(score)``, as a share of all given.

    Args:
        hypotheses: different captions, the best by ``score`` first; of equal ones the earlier stays first.
    """
    highest = max((hypothesis.score for hypothesis in hypotheses), default=0.0)
    weights = [math.exp(hypothesis.score - highest) for hypothesis in hypotheses]
    total = sum(weights)
    shares = [weight / total for weight in weights]
    expected = expected_gleu([hypothesis.words for hypothesis in hypotheses], shares)
    rated = [replace(each, score=gleu) for each, gleu in zip(hypotheses, expected, strict=True)]
    return sorted(rated, key=lambda hypothesis: -hypothesis.score)


def expected_gleu(captions: Sequence[Sequence[int]], probabilities: Sequence[float]) -> list[float]:
    """Compute the GLEU of each caption with one that is drawn from all, itself included.

    Args:
        captions: ids of the words of each.
        probabilities: of drawing each; their sum is 1.

    Returns:
        From 0 to 1; 0 for a caption without words.
    """
    from nltk.translate.gleu_score import sentence_gleu

    expected = [0.0] * len(captions)
    for (first, one), (second, other) in combinations_with_replacement(enumerate(captions), 2):
        gleu = sentence_gleu([one], other)  # the same in both directions
        expected[first] += probabilities[second] * gleu
        if first != second:
            expected[second] += probabilities[first] * gleu
    return expected
