"""Captions drawn from the model's distribution."""

import torch

from captioner.decoding.beam import NEVER, Choice, Hypothesis, hypotheses
from captioner.decoding.options import DecodingOptions

# A new set of rows costs a copy of their states, so it is made when one row in so many has ended.
_LEAVING = 4


class Sampling:
    """Draws words from the model's distribution, sharpened by temperature and cut by top-k and top-p.

    Top-p ("nucleus") sampling: Holtzman et al. 2020, section 3.1. Every image has a random stream of
    its own, so that its captions do not depend on the images beside it.

    Args:
        seeds: one seed for each image.
        options: decoding options; ``num_captions`` captions are drawn for each image, in the order drawn.
        end: id of ``<end>``.
    """

    def __init__(self, seeds: list[int], options: DecodingOptions, end: int) -> None:
        self.options, self.end = options, end
        self.images, self.width = len(seeds), options.width
        steps = options.max_length + 1
        streams = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            streams.append(torch.rand(self.width, steps, dtype=torch.float64, generator=generator))
        rows = self.images * self.width
        self.uniforms = torch.stack(streams).view(rows, steps)
        self.words = torch.full((rows, steps), end, dtype=torch.long)
        self.history = torch.zeros(rows, steps)
        self.lengths = torch.zeros(rows, dtype=torch.long)
        self.ended = torch.zeros(rows, dtype=torch.bool)
        self.running = torch.arange(rows)  # rows that the decoding loop still goes on with

    def choose(self, log_probs: torch.Tensor, allowed: torch.Tensor, words: torch.Tensor) -> Choice:
        """Choose as :meth:`captioner.decoding.beam.BeamSearch.choose` does."""
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

    def _draw(self, log_probs: torch.Tensor, allowed: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        temperature = 1.0 if self.options.temperature is None else self.options.temperature
        logits = (log_probs / temperature).masked_fill(~allowed, NEVER)
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
        """Say whether no further word can change the result."""
        return bool(self.ended.all())

    def hypotheses(self) -> list[list[Hypothesis]]:
        """List the captions of each image, in the order drawn."""
        shape = (self.images, self.width)
        scores = self.history.sum(dim=1).view(shape)
        words = self.words.view(*shape, -1)
        return hypotheses(words, self.history.view(*shape, -1), self.lengths.view(shape), scores)


def _pick(probs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The place in each row of ``(rows, words)`` at which the sum of probabilities exceeds a share of all."""
    cumulative = probs.cumsum(dim=-1)
    total = cumulative[:, -1:].contiguous()
    places = torch.searchsorted(cumulative, uniforms.unsqueeze(1) * total, right=True)
    # Rounding may leave the place behind the last that has a probability.
    last = torch.searchsorted(cumulative, total)
    # Of probabilities that are not numbers some place is taken, so that training can skip such a step.
    return torch.minimum(places, last).clamp(max=probs.shape[1] - 1).squeeze(1)
