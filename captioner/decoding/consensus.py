"""Consensus: of the captions that a search finished, the one that the others agree with most.

The most probable caption is one sentence among many that are nearly as probable; what most of them say is
more likely right. So the captions c are ordered by the similarity that is expected of each with a caption
drawn from all of them, ``sum over d of P(d) GLEU(c, d)``: minimum Bayes risk with the loss ``1 - GLEU``
(Kumar & Byrne 2004, "Minimum Bayes-Risk Decoding for Statistical Machine Translation"; for captions Devlin
et al. 2015, "Exploring Nearest Neighbor Approaches for Image Captioning", the consensus caption). GLEU
(Wu et al. 2016, "Google's Neural Machine Translation System", section 5) counts the sequences of 1 to 4 words
that two captions share, as a share of those of the caption that has more.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from captioner.decoding.strategies import Hypothesis

_LONGEST = 4
_Occurrence: TypeAlias = "tuple[tuple[int, ...], int]"


def by_consensus(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Order captions of one picture by their expected GLEU, which becomes their score.

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
    """GLEU of each caption with one that is drawn from all, itself included.

    GLEU divides what two captions share by what the longer one has. So captions of equal length are added up
    first, and no pair is looked at: time grows with the number of captions, not with its square.

    Args:
        captions: ids of the words of each.
        probabilities: of drawing each; their sum is 1.

    Returns:
        From 0 to 1; 0 for a caption without words.
    """
    occurring = [_occurrences(words) for words in captions]
    by_size: dict[int, defaultdict[_Occurrence, float]] = {}
    for own, probability in zip(occurring, probabilities, strict=True):
        drawn = by_size.setdefault(len(own), defaultdict(float))
        for occurrence in own:
            drawn[occurrence] += probability
    return [
        sum(
            sum(drawn.get(occurrence, 0.0) for occurrence in own) / max(len(own), size)
            for size, drawn in by_size.items()
            if own
        )
        for own in occurring
    ]


def _occurrences(words: Sequence[int]) -> list[_Occurrence]:
    """Sequences of 1 to 4 words, each with how often it came before, so that all are different."""
    seen: Counter[tuple[int, ...]] = Counter()
    found = []
    for size in range(1, _LONGEST + 1):
        for start in range(len(words) - size + 1):
            ngram = tuple(words[start : start + size])
            found.append((ngram, seen[ngram]))
            seen[ngram] += 1
    return found
