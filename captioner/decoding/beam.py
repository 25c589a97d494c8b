"""Beam search, for captions that hold given words if need be; greedy search is a beam of one.

A strategy, this one or :class:`captioner.decoding.sampling.Sampling`, begins with ``width`` captions for each image
and ends with ``num_captions`` hypotheses, or fewer if no more exist. Images whose captions are there leave it, and
arrays have a row for each of the others.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import NamedTuple, TypeVar

import numpy as np

from captioner.decoding.filters import NEVER, Floats, Ints, SpecialIds, strike
from captioner.decoding.options import DecodingOptions

T = TypeVar("T", bound=np.generic)
Wanted = Sequence[Sequence[Collection[int]]]
"""For each image some sets of ids, of each of which one word at least must stand in its captions."""
_CHUNK = 128  # numbers of which only the largest is looked at first


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
    """How captions go on: ``(images, width)`` which caption of its image each continues, and with which word."""

    parents: Ints
    words: Ints


def length_normalisation(length: int, exponent: float) -> float:
    """Compute the divisor of a caption's log-probability, ``((5 + length) / 6) ** exponent``.

    Wu et al. 2016 ("Google's Neural Machine Translation System"), eq. 14; ``length`` counts words
    without ``<end>``.
    """
    return float(((5 + length) / 6) ** exponent)


def top(scores: Floats, count: int) -> tuple[Floats, Ints]:
    """Find the ``count`` largest of each row, largest first; of equal ones the earliest. Deterministic.

    Of a row with fewer numbers above minus infinity, the rest are minus infinity and place 0.

    Shapes: ``(rows, n)`` -> values and places ``(rows, count)``.
    """
    rows, n = scores.shape
    # Partitioning a whole vocabulary is slow. But ``count`` chunks whose largest number reaches a bound hold as many
    # numbers that do, so that the largest all reach it, and few others do.
    chunked = n >= _CHUNK * count
    maxima = np.maximum.reduceat(scores, np.arange(0, n, _CHUNK), axis=1) if chunked else scores
    bound = np.partition(maxima, -count, axis=1)[:, -count, None]
    bound = np.maximum(bound, np.finfo(scores.dtype).min)
    row, place = np.divmod(np.flatnonzero(scores >= bound), n)
    found = scores[row, place]
    order = np.lexsort((-found, row))  # stable
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    first = rank < count
    row, rank, order = row[first], rank[first], order[first]
    values, places = np.full((rows, count), NEVER, scores.dtype), np.zeros((rows, count), np.int64)
    values[row, rank], places[row, rank] = found[order], place[order]
    return values, places


class Constraints:
    """The finite-state machine over captions: which of the wanted sets their words have met so far.

    Anderson et al. 2017 ("Guided open vocabulary image captioning with constrained beam search").

    A state is a number with one binary digit a set. Of an image with fewer sets than another, the sets
    that it lacks count as met from the start.

    Args:
        wanted: the sets of each image, at least one in all.

    Attributes:
        states: number of states; in the last one all sets are met.
        starts: ``(images,)`` state of the empty caption.
    """

    def __init__(self, wanted: Wanted) -> None:
        most = max(map(len, wanted))
        self.states = 1 << most
        self.wanted = wanted
        self.starts = np.array([self.states - (1 << len(sets)) for sets in wanted])

    def targets(self, images: Ints, vocabulary: int) -> Ints:
        """Find the state after each word, from each state: ``(images, states, vocabulary)``, of some images."""
        meets = np.zeros((len(images), 1, vocabulary), np.int64)
        for row, image in enumerate(images):
            for place, ids in enumerate(self.wanted[image]):
                meets[row, 0, list(ids)] |= 1 << place
        return np.arange(self.states)[:, None] | meets


class BeamSearch:
    """Beam search over all images at once; with a beam of one, greedy search.

    In each step the best ``beam`` continuations of all beams are looked at. Those among them that end
    go to a pool of the best ``options.finished`` captions; the beam is filled up with the best
    unfinished ones, so that finished captions never take a place in it. An image is done when no
    unfinished caption can still enter the full pool: log-probabilities only fall, so the bound is the
    present one at the most favourable length. Ties go to the better beam, then to the lower word id.

    With constraints there is one such beam for each of their states, and a continuation competes for the
    beam of the state that it leads to; only captions of the last state, which meet all, can finish.

    Args:
        images: number of images.
        options: decoding options.
        special: ids that are treated apart.
        constraints: words that the captions must hold.

    Attributes:
        width: captions in the making for each image, ``states * beam``.
    """

    def __init__(
        self, images: int, options: DecodingOptions, special: SpecialIds, constraints: Constraints | None = None
    ) -> None:
        self.beam, self.options, self.special = options.width, options, special
        self.constraints = constraints
        self.states = 1 if constraints is None else constraints.states
        self.width = self.states * self.beam
        # Greedy search never compares captions of different lengths: it stops where the end is most likely.
        # With constraints it does, since each state ends captions of its own.
        self.exponent = options.length_penalty if self.width > 1 else 0.0
        self.running = np.arange(images)  # those that have not left
        # All beams start equal, so that only the first of the first state may count.
        self.scores: Floats = np.full((images, self.width), NEVER, np.float32)
        self.scores[self.running, 0 if constraints is None else constraints.starts * self.beam] = 0.0
        self.history: Floats = np.zeros((images, self.width, 0), np.float32)  # log-probability of each word so far
        self.pools: list[list[Hypothesis]] = [[] for _ in range(images)]  # the best first
        self.least = np.full(images, NEVER)  # what a caption must exceed to enter the pool of an image

    def choose(self, log_probs: Floats, words: Ints) -> Choice:
        """Choose the next words.

        Args:
            log_probs: ``(images, width, vocab)``.
            words: ``(images, width, time)`` words so far, without ``<start>``.
        """
        images, width, vocabulary = log_probs.shape
        totals = np.add(self.scores[..., None], log_probs, order="C")
        strike(totals.reshape(-1, vocabulary), words.reshape(images * width, -1), self.options, self.special)
        # From here on one row for each state of each image. Each beam can end once, so twice the beam
        # always holds enough that go on.
        totals, flat = top(self._by_state(totals), min(2 * self.beam, width * vocabulary))
        parents, chosen = np.divmod(flat, vocabulary)
        ends = chosen == self.special.end
        last = slice(self.states - 1, None, self.states)
        ending = np.where(ends, totals, NEVER)[last, : self.beam]
        self._finish(ending, parents[last], words, log_probs[..., self.special.end])
        # Those that go on, best first: a stable sort keeps the order within ended and unended ones.
        order = np.argsort(ends, axis=1, kind="stable")[:, : self.beam]
        going = (np.where(ends, NEVER, totals), parents, chosen)
        self.scores, parents, chosen = (np.take_along_axis(each, order, 1).reshape(images, width) for each in going)
        grown = log_probs[np.arange(images)[:, None], parents, chosen]
        self.history = np.concatenate((take(self.history, parents), grown[..., None]), axis=2)
        return Choice(parents, chosen)

    def _by_state(self, totals: Floats) -> Floats:
        """Continuations by the state that they lead to, minus infinity for those that lead to another.

        Shapes: ``(images, width, vocabulary)`` -> ``(images * states, width * vocabulary)``.
        """
        if self.constraints is None:
            return totals.reshape(len(totals), -1)
        targets = self.constraints.targets(self.running, totals.shape[2]).repeat(self.beam, axis=1)
        there = targets[:, None] == np.arange(self.states)[:, None, None]
        return np.where(there, totals[:, None], NEVER).reshape(len(totals) * self.states, -1)

    def _finish(self, totals: Floats, parents: Ints, words: Ints, end_log_probs: Floats) -> None:
        """Let captions that end here compete for the pools.

        Args:
            totals: ``(images, beam)`` their log-probabilities; minus infinity for those that do not end.
            parents: ``(images, beam)`` which of the captions so far they are, perhaps followed by others.
            words: ``(images, width, time)``.
            end_log_probs: ``(images, width)`` of ending each.
        """
        scores = totals / length_normalisation(words.shape[2], self.exponent)
        for row, place in np.argwhere(scores > self.least[self.running, None]).tolist():
            image, parent = self.running[row], parents[row, place]
            log_probs = (*self.history[row, parent].tolist(), float(end_log_probs[row, parent]))
            pool = self.pools[image]
            pool.append(hypothesis(words[row, parent].tolist(), log_probs, float(scores[row, place])))
            pool.sort(key=lambda caption: -caption.score)
            del pool[self.options.finished :]
            if len(pool) == self.options.finished:
                self.least[image] = pool[-1].score

    def leave(self) -> Ints:
        """Let images leave of which no further word can change the result; give the rows of the others."""
        bound = self.scores.max(axis=1) / length_normalisation(self.options.max_length, self.exponent)
        rows = np.flatnonzero(bound > self.least[self.running])
        self.running, self.scores, self.history = self.running[rows], self.scores[rows], self.history[rows]
        return rows

    def hypotheses(self) -> list[list[Hypothesis]]:
        """List the captions of each image, the best first."""
        if not self.options.consensus:
            return self.pools
        return [by_mbr(pool)[: self.options.num_captions] for pool in self.pools]


def hypothesis(words: Sequence[int], log_probs: Sequence[float], score: float | None = None) -> Hypothesis:
    """Make a finished caption of its words and their log-probabilities, that of the end last.

    Its score is by default its log-probability.
    """
    *of_words, end = log_probs
    log_prob = sum(of_words) + end
    return Hypothesis(tuple(words), tuple(of_words), end, log_prob, log_prob if score is None else score)


def take(values: np.typing.NDArray[T], parents: Ints) -> np.typing.NDArray[T]:
    """``values[image, parents[image, i]]``: ``(images, captions, time)`` -> ``(images, width, time)``."""
    return values[np.arange(len(values))[:, None], parents]


def by_mbr(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Order captions of one image by their expected GLEU, which becomes their score.

    The most probable caption is one sentence among many that are nearly as probable; what most of them say is
    more likely right. So the captions c are ordered by the similarity that is expected of each with a caption
    drawn from all of them, ``sum over d of P(d) GLEU(c, d)``: minimum Bayes risk with the loss ``1 - GLEU``
    (Kumar & Byrne 2004, "Minimum Bayes-Risk Decoding for Statistical Machine Translation"; for captions Devlin
    et al. 2015, "Exploring Nearest Neighbor Approaches for Image Captioning", the consensus caption). GLEU
    (Wu et al. 2016, "Google's Neural Machine Translation System", section 5) counts the sequences of 1 to 4
    words that two captions share, as a share of those of the caption that has more.

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
