"""How the next words are chosen: by beam search (greedy with a beam of one) or by sampling.

A strategy begins with ``width`` captions for each picture, as rows ``picture * width + slot``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from captioner.decoding.constraints import Constraints, Wanted
from captioner.decoding.options import DecodingOptions
from captioner.errors import OptionError

_NEVER = float("-inf")
_LEAVING = (
    4  # a new set of rows costs a copy of their states, so it is made when one row in so many has ended
)


@dataclass(frozen=True)
class Hypothesis:
    """A finished caption as ids.

    Attributes:
        words: ids, without ``<start>`` and ``<end>``.
        word_log_probs: natural log-probability of each word given those before it and the picture.
        end_log_prob: that of ending here.
        log_prob: log P(caption | picture), the sum of all these.
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


class Strategy(Protocol):
    """What the decoding loop asks of a strategy.

    Attributes:
        width: captions in the making for each picture.
    """

    width: int

    def choose(self, log_probs: Tensor, allowed: Tensor, words: Tensor) -> Choice:
        """Choose the next words.

        Args:
            log_probs: ``(rows, vocab)``, the model's own.
            allowed: ``(rows, vocab)``, false where a filter forbids the word.
            words: ``(rows, time)`` words so far, without ``<start>``.
        """

    def done(self) -> bool:
        """Whether no further word can change the result."""

    def hypotheses(self) -> list[list[Hypothesis]]:
        """For each picture ``num_captions`` captions (fewer if no more exist)."""


def length_normalisation(length: int, exponent: float) -> float:
    """Divisor of a caption's log-probability, ``((5 + length) / 6) ** exponent``.

    Wu et al. 2016 ("Google's Neural Machine Translation System"), eq. 14; ``length`` counts words
    without ``<end>``.
    """
    return float(((5 + length) / 6) ** exponent)


def top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest of each row, largest first; of equal ones the earliest. Deterministic.

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


class BeamSearch:
    """Beam search over all pictures at once; with a beam of one, greedy search.

    In each step the best ``beam`` continuations of all beams are looked at. Those among them that end
    go to a pool of the best ``num_captions`` finished captions; the beam is filled up with the best
    unfinished ones, so that finished captions never take a place in it. A picture is done when no
    unfinished caption can still enter the full pool: log-probabilities only fall, so the bound is the
    present one at the most favourable length. Ties go to the better beam, then to the lower word id.

    With constraints there is one such beam for each of their states, and a continuation competes for the
    beam of the state that it leads to; only captions of the last state, which meet all, can finish.

    Args:
        pictures: number of pictures.
        options: decoding options.
        end: id of ``<end>``.
        device: where the tensors live.
        constraints: words that the captions must hold.

    Attributes:
        width: captions in the making for each picture, ``states * beam``.
    """

    def __init__(
        self,
        pictures: int,
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
        shape = (pictures, self.width)
        # All beams start equal, so that only the first of the first state may count.
        self.scores = torch.full(shape, _NEVER, device=device)
        if constraints is None:
            self.scores[:, 0] = 0.0
        else:
            self.scores.scatter_(1, constraints.starts.unsqueeze(1) * self.beam, 0.0)
        steps = options.max_length + 1
        self.history = torch.zeros(*shape, steps, device=device)  # log-probability of each word so far
        pool = (pictures, options.num_captions)
        self.pool_scores = torch.full(pool, _NEVER, device=device)
        self.pool_lengths = torch.zeros(pool, dtype=torch.long, device=device)
        self.pool_words = torch.zeros(*pool, steps, dtype=torch.long, device=device)
        self.pool_history = torch.zeros(*pool, steps, device=device)

    def choose(self, log_probs: Tensor, allowed: Tensor, words: Tensor) -> Choice:
        """See :class:`Strategy`."""
        pictures, width = self.scores.shape
        length, vocabulary = words.shape[1], log_probs.shape[1]
        totals = self.scores.unsqueeze(-1) + log_probs.view(pictures, width, vocabulary)
        totals = totals.masked_fill(~allowed.view(pictures, width, vocabulary), _NEVER)
        # From here on one row for each state of each picture. Each beam can end once, so twice the beam
        # always holds enough that go on.
        totals, flat = top(self._by_state(totals), min(2 * self.beam, width * vocabulary))
        ends = flat % vocabulary == self.end
        history = self._of_states(self.history, flat // vocabulary)
        grown = log_probs.view(pictures, width * vocabulary).gather(1, flat.view(pictures, -1))
        history[..., length] = grown.view_as(flat)
        best = slice(0, self.beam)
        last = slice(self.states - 1, None, self.states)
        self._finish(
            totals[last, best].masked_fill(~ends[last, best], _NEVER),
            _take(words.view(pictures, width, length), flat[last, best] // vocabulary),
            history[last, best],
        )
        # Those that go on, best first: a stable sort keeps the order within ended and unended ones.
        order = ends.long().sort(dim=1, stable=True).indices[:, best]
        self.scores = totals.masked_fill(ends, _NEVER).gather(1, order).view(pictures, width)
        self.history = _take(history, order).view(pictures, width, -1)
        flat = flat.gather(1, order).view(pictures, width)
        first_row = torch.arange(pictures, device=flat.device).unsqueeze(1) * width
        return Choice((first_row + flat // vocabulary).flatten(), (flat % vocabulary).flatten())

    def _by_state(self, totals: Tensor) -> Tensor:
        """Continuations by the state that they lead to, minus infinity for those that lead to another.

        Shapes: ``(pictures, width, vocabulary)`` -> ``(pictures * states, width * vocabulary)``.
        """
        if self.constraints is None:
            return totals.flatten(1)
        targets = self.constraints.targets(totals.shape[2]).repeat_interleave(self.beam, dim=1)
        states = torch.arange(self.states, device=totals.device).view(1, -1, 1, 1)
        elsewhere = targets.unsqueeze(1) != states
        return totals.unsqueeze(1).masked_fill(elsewhere, _NEVER).view(-1, totals[0].numel())

    def _of_states(self, values: Tensor, beams: Tensor) -> Tensor:
        """``(pictures, width, time)`` at ``(pictures * states, n)`` -> ``(pictures * states, n, time)``."""
        return _take(values, beams.view(len(values), -1)).view(*beams.shape, -1)

    def _finish(self, totals: Tensor, words: Tensor, history: Tensor) -> None:
        """Let captions that end here compete for the pool.

        Args:
            totals: ``(pictures, beam)`` their log-probabilities; minus infinity for those that do not end.
            words: ``(pictures, beam, length)``.
            history: ``(pictures, beam, steps)``.
        """
        length = words.shape[2]
        scores = totals / length_normalisation(length, self.exponent)
        ended_words = words.new_zeros(history.shape)
        ended_words[..., :length] = words
        lengths = torch.full_like(scores, length, dtype=torch.long)
        self.pool_scores, order = top(torch.cat((self.pool_scores, scores), dim=1), self.options.num_captions)
        self.pool_lengths = torch.cat((self.pool_lengths, lengths), dim=1).gather(1, order)
        self.pool_words = _take(torch.cat((self.pool_words, ended_words), dim=1), order)
        self.pool_history = _take(torch.cat((self.pool_history, history), dim=1), order)

    def done(self) -> bool:
        """See :class:`Strategy`."""
        bound = self.scores.amax(dim=1) / length_normalisation(self.options.max_length, self.exponent)
        return bool((bound <= self.pool_scores.amin(dim=1)).all())

    def hypotheses(self) -> list[list[Hypothesis]]:
        """See :class:`Strategy`; the best caption first."""
        return _hypotheses(self.pool_words, self.pool_history, self.pool_lengths, self.pool_scores)


class Sampling:
    """Draws words from the model's distribution, sharpened by temperature and cut by top-k and top-p.

    Top-p ("nucleus") sampling: Holtzman et al. 2020, section 3.1. Every picture has a random stream of
    its own, so that its captions do not depend on the pictures beside it.

    Args:
        seeds: one seed for each picture.
        options: decoding options; ``num_captions`` captions are drawn for each picture, in the order drawn.
        end: id of ``<end>``.
    """

    def __init__(self, seeds: list[int], options: DecodingOptions, end: int) -> None:
        self.options, self.end = options, end
        self.pictures, self.width = len(seeds), options.width
        steps = options.max_length + 1
        streams = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            streams.append(torch.rand(self.width, steps, dtype=torch.float64, generator=generator))
        rows = self.pictures * self.width
        self.uniforms = torch.stack(streams).view(rows, steps)
        self.words = torch.full((rows, steps), end, dtype=torch.long)
        self.history = torch.zeros(rows, steps)
        self.lengths = torch.zeros(rows, dtype=torch.long)
        self.ended = torch.zeros(rows, dtype=torch.bool)
        self.running = torch.arange(rows)  # rows that the decoding loop still goes on with

    def choose(self, log_probs: Tensor, allowed: Tensor, words: Tensor) -> Choice:
        """See :class:`Strategy`."""
        # Inverse transform sampling in float64 on the CPU: the same draw on every device.
        time, rows = words.shape[1], self.running
        log_probs, ended = log_probs.cpu(), self.ended[rows]
        drawn = self._draw(log_probs.double(), allowed.cpu(), self.uniforms[rows, time])
        drawn = torch.where(ended, self.end, drawn)
        picked = log_probs.gather(1, drawn.unsqueeze(1)).squeeze(1)
        self.history[rows, time] = torch.where(ended, 0.0, picked)
        self.words[rows, time] = drawn
        ended |= drawn == self.end
        self.ended[rows] = ended
        self.lengths[rows] += ~ended
        going = torch.arange(len(rows))
        if _LEAVING * int(ended.sum()) >= len(rows):
            going = going[~ended]
        self.running = rows[going]
        return Choice(going.to(words.device), drawn[going].to(words.device))

    def _draw(self, log_probs: Tensor, allowed: Tensor, uniforms: Tensor) -> Tensor:
        temperature = 1.0 if self.options.temperature is None else self.options.temperature
        logits = (log_probs / temperature).masked_fill(~allowed, _NEVER)
        probs = logits.softmax(dim=-1)
        if not self.options.top_k and self.options.top_p == 1:
            return _pick(probs, uniforms)
        probs, words = probs.sort(dim=-1, descending=True, stable=True)
        if self.options.top_k:
            probs[:, self.options.top_k :] = 0.0
        if self.options.top_p < 1:
            share = probs.cumsum(dim=-1) / probs.sum(dim=-1, keepdim=True)
            # A word stays while those before it hold less than the share; the first always stays.
            before = torch.cat((torch.zeros_like(share[:, :1]), share[:, :-1]), dim=-1)
            probs[before >= self.options.top_p] = 0.0
        return words.gather(1, _pick(probs, uniforms).unsqueeze(1)).squeeze(1)

    def done(self) -> bool:
        """See :class:`Strategy`."""
        return bool(self.ended.all())

    def hypotheses(self) -> list[list[Hypothesis]]:
        """See :class:`Strategy`; in the order drawn."""
        shape = (self.pictures, self.width)
        scores = self.history.sum(dim=1).view(shape)
        words = self.words.view(*shape, -1)
        return _hypotheses(words, self.history.view(*shape, -1), self.lengths.view(shape), scores)


def build_strategy(
    options: DecodingOptions,
    seeds: list[int],
    end: int,
    device: torch.device,
    wanted: Wanted | None = None,
) -> Strategy:
    """The strategy that the options ask for, over ``len(seeds)`` pictures.

    Raises:
        OptionError: words are wanted of captions that are drawn.
    """
    constraints = Constraints(wanted, device) if wanted is not None and any(wanted) else None
    if not options.sampling:
        return BeamSearch(len(seeds), options, end, device, constraints)
    if constraints is not None:
        raise OptionError("words can be asked of captions that are searched for, not of drawn ones")
    return Sampling(seeds, options, end)


def _pick(probs: Tensor, uniforms: Tensor) -> Tensor:
    """The place in each row of ``(rows, words)`` at which the sum of probabilities exceeds a share of all."""
    cumulative = probs.cumsum(dim=-1)
    total = cumulative[:, -1:].contiguous()
    places = torch.searchsorted(cumulative, uniforms.unsqueeze(1) * total, right=True)
    # Rounding may leave the place behind the last that has a probability.
    last = torch.searchsorted(cumulative, total)
    # Of probabilities that are not numbers some place is taken, so that training can skip such a step.
    return torch.minimum(places, last).clamp(max=probs.shape[1] - 1).squeeze(1)


def _take(values: Tensor, beams: Tensor) -> Tensor:
    """``values[picture, beams[picture, i]]``: ``(pictures, beams, time)`` -> ``(pictures, width, time)``."""
    return values.gather(1, beams.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def _hypotheses(words: Tensor, history: Tensor, lengths: Tensor, scores: Tensor) -> list[list[Hypothesis]]:
    results: list[list[Hypothesis]] = []
    rows = zip(words.tolist(), history.tolist(), lengths.tolist(), scores.tolist(), strict=True)
    for picture in rows:
        found = []
        for ids, log_probs, length, score in zip(*picture, strict=True):
            if score == _NEVER:
                continue
            *word_log_probs, end_log_prob = log_probs[: length + 1]
            found.append(
                Hypothesis(
                    words=tuple(ids[:length]),
                    word_log_probs=tuple(word_log_probs),
                    end_log_prob=end_log_prob,
                    log_prob=sum(word_log_probs) + end_log_prob,
                    score=score,
                )
            )
        results.append(found)
    return results
