"""Beam search, for captions that hold given words if need be; greedy search is a beam of one.

A strategy, this one or :class:`captioner.decoding.sampling.Sampling`, begins with ``width`` captions for each image, as
rows ``image * width + slot``, and ends with ``num_captions`` hypotheses, or fewer if no more exist.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import NamedTuple

import torch

from captioner.decoding.options import DecodingOptions

Wanted = Sequence[Sequence[Collection[int]]]
"""For each image some sets of ids, of each of which one word at least must stand in its captions."""
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

    parents: torch.Tensor
    words: torch.Tensor


def hypotheses(
    words: torch.Tensor, history: torch.Tensor, lengths: torch.Tensor, scores: torch.Tensor
) -> list[list[Hypothesis]]:
    """Read finished captions out of tensors; a score of minus infinity means that there is none.

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


def length_normalisation(length: int, exponent: float) -> float:
    """Compute the divisor of a caption's log-probability, ``((5 + length) / 6) ** exponent``.

    Wu et al. 2016 ("Google's Neural Machine Translation System"), eq. 14; ``length`` counts words
    without ``<end>``.
    """
    return float(((5 + length) / 6) ** exponent)


def top(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the ``count`` largest of each row, largest first; of equal ones the earliest. Deterministic.

    ``torch.topk`` leaves the order of equal values open, and a stable sort of a whole vocabulary is slow.

    Shapes: ``(rows, n)`` -> values and indices ``(rows, count)``.
    """
    threshold = scores.topk(count, dim=1).values[:, -1:]
    above, equal = scores > threshold, scores == threshold
    room = count - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1) <= room))
    indices = chosen.nonzero()[:, 1].view(len(scores), count)
    values, order = scores.gather(1, indices).sort(dim=1, descending=True, stable=True)
    return values, indices.gather(1, order)


class Constraints:
    """The finite-state machine over captions: which of the wanted sets their words have met so far.

    Anderson et al. 2017 ("Guided open vocabulary image captioning with constrained beam search").

    A state is a number with one binary digit a set. Of an image with fewer sets than another, the sets
    that it lacks count as met from the start.

    Args:
        wanted: the sets of each image, at least one in all.
        device: where the tensors live.

    Attributes:
        states: number of states; in the last one all sets are met.
        starts: ``(images,)`` state of the empty caption.
    """

    def __init__(self, wanted: Wanted, device: torch.device) -> None:
        most = max(map(len, wanted))
        self.states = 1 << most
        self.wanted = wanted
        self.starts = torch.tensor([self.states - (1 << len(sets)) for sets in wanted], device=device)

    def targets(self, vocabulary: int) -> torch.Tensor:
        """Find the state after each word, from each state: ``(images, states, vocabulary)``."""
        meets = torch.zeros(len(self.wanted), vocabulary, dtype=torch.long)
        for image, sets in enumerate(self.wanted):
            for place, ids in enumerate(sets):
                meets[image, list(ids)] |= 1 << place
        states = torch.arange(self.states, device=self.starts.device)
        return states.view(1, -1, 1) | meets.to(states.device).unsqueeze(1)


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
        end: id of ``<end>``.
        device: where the tensors live.
        constraints: words that the captions must hold.

    Attributes:
        width: captions in the making for each image, ``states * beam``.
    """

    def __init__(
        self,
        images: int,
        options: DecodingOptions,
        end: int,
        device: torch.device,
        constraints: Constraints | None = None,
    ) -> None:
        self.beam, self.end, self.options = options.width, end, options
        self.constraints = constraints
        self.states = 1 if constraints is None else constraints.states
        self.width = self.states * self.beam
        # Greedy search never compares captions of different lengths: it stops where the end is most likely.
        # With constraints it does, since each state ends captions of its own.
        self.exponent = options.length_penalty if self.width > 1 else 0.0
        shape = (images, self.width)
        # All beams start equal, so that only the first of the first state may count.
        self.scores = torch.full(shape, NEVER, device=device)
        if constraints is None:
            self.scores[:, 0] = 0.0
        else:
            self.scores.scatter_(1, constraints.starts.unsqueeze(1) * self.beam, 0.0)
        steps = options.max_length + 1
        self.history = torch.zeros(*shape, steps, device=device)  # log-probability of each word so far
        pool = (images, options.finished)
        self.pool_scores = torch.full(pool, NEVER, device=device)
        self.pool_lengths = torch.zeros(pool, dtype=torch.long, device=device)
        self.pool_words = torch.zeros(*pool, steps, dtype=torch.long, device=device)
        self.pool_history = torch.zeros(*pool, steps, device=device)

    def choose(self, log_probs: torch.Tensor, allowed: torch.Tensor, words: torch.Tensor) -> Choice:
        """Choose the next words.

        Args:
            log_probs: ``(rows, vocab)``, the model's own.
            allowed: ``(rows, vocab)``, false where a filter forbids the word.
            words: ``(rows, time)`` words so far, without ``<start>``.
        """
        images, width = self.scores.shape
        length, vocabulary = words.shape[1], log_probs.shape[1]
        totals = self.scores.unsqueeze(-1) + log_probs.view(images, width, vocabulary)
        totals = totals.masked_fill(~allowed.view(images, width, vocabulary), NEVER)
        # From here on one row for each state of each image. Each beam can end once, so twice the beam
        # always holds enough that go on.
        totals, flat = top(self._by_state(totals), min(2 * self.beam, width * vocabulary))
        ends = flat % vocabulary == self.end
        history = _take(self.history, (flat // vocabulary).view(images, -1)).view(*flat.shape, -1)
        grown = log_probs.view(images, width * vocabulary).gather(1, flat.view(images, -1))
        history[..., length] = grown.view_as(flat)
        best = slice(0, self.beam)
        last = slice(self.states - 1, None, self.states)
        self._finish(
            totals[last, best].masked_fill(~ends[last, best], NEVER),
            _take(words.view(images, width, length), flat[last, best] // vocabulary),
            history[last, best],
        )
        # Those that go on, best first: a stable sort keeps the order within ended and unended ones.
        order = ends.long().sort(dim=1, stable=True).indices[:, best]
        self.scores = totals.masked_fill(ends, NEVER).gather(1, order).view(images, width)
        self.history = _take(history, order).view(images, width, -1)
        flat = flat.gather(1, order).view(images, width)
        first_row = torch.arange(images, device=flat.device).unsqueeze(1) * width
        return Choice((first_row + flat // vocabulary).flatten(), (flat % vocabulary).flatten())

    def _by_state(self, totals: torch.Tensor) -> torch.Tensor:
        """Continuations by the state that they lead to, minus infinity for those that lead to another.

        Shapes: ``(images, width, vocabulary)`` -> ``(images * states, width * vocabulary)``.
        """
        if self.constraints is None:
            return totals.flatten(1)
        targets = self.constraints.targets(totals.shape[2]).repeat_interleave(self.beam, dim=1)
        states = torch.arange(self.states, device=totals.device).view(1, -1, 1, 1)
        elsewhere = targets.unsqueeze(1) != states
        return totals.unsqueeze(1).masked_fill(elsewhere, NEVER).view(-1, totals[0].numel())

    def _finish(self, totals: torch.Tensor, words: torch.Tensor, history: torch.Tensor) -> None:
        """Let captions that end here compete for the pool.

        Args:
            totals: ``(images, beam)`` their log-probabilities; minus infinity for those that do not end.
            words: ``(images, beam, length)``.
            history: ``(images, beam, steps)``.
        """
        length = words.shape[2]
        scores = totals / length_normalisation(length, self.exponent)
        ended_words = words.new_zeros(history.shape)
        ended_words[..., :length] = words
        lengths = torch.full_like(scores, length, dtype=torch.long)
        self.pool_scores, order = top(torch.cat((self.pool_scores, scores), dim=1), self.options.finished)
        self.pool_lengths = torch.cat((self.pool_lengths, lengths), dim=1).gather(1, order)
        self.pool_words = _take(torch.cat((self.pool_words, ended_words), dim=1), order)
        self.pool_history = _take(torch.cat((self.pool_history, history), dim=1), order)

    def done(self) -> bool:
        """Say whether no further word can change the result."""
        bound = self.scores.amax(dim=1) / length_normalisation(self.options.max_length, self.exponent)
        return bool((bound <= self.pool_scores.amin(dim=1)).all())

    def hypotheses(self) -> list[list[Hypothesis]]:
        """List the captions of each image, the best first."""
        found = hypotheses(self.pool_words, self.pool_history, self.pool_lengths, self.pool_scores)
        if not self.options.consensus:
            return found
        return [by_mbr(of_image)[: self.options.num_captions] for of_image in found]


def _take(values: torch.Tensor, beams: torch.Tensor) -> torch.Tensor:
    """``values[image, beams[image, i]]``: ``(images, beams, time)`` -> ``(images, width, time)``."""
    return values.gather(1, beams.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


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
