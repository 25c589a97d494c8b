"""Consensus: of the captions that a search finished, the one that the others agree with most.

The most probable caption is one sentence among many that are nearly as probable; what most of them say is
more likely right. So the captions c are ordered by the similarity that is expected of each with a caption
drawn from all of them, ``sum over d of P(d) GLEU(c, d)``: minimum Bayes risk with the loss ``1 - GLEU``
(Kumar & Byrne 2004, "Minimum Bayes-Risk Decoding for Statistical Machine Translation"; for captions Devlin
et al. 2015, "Exploring Nearest Neighbor Approaches for Image Captioning", the consensus caption). GLEU
(Wu et al. 2016, "Google's Neural Machine Translation System", section 5) counts the sequences of 1 to 4 words
that two captions share, as a share of those of the caption that has more.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations_with_replacement

from captioner.decoding.hypotheses import Hypothesis


def by_consensus(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
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
