"""Captions drawn from the model's distribution."""

import numpy as np

from captioner.decoding.beam import Choice, Hypothesis, hypothesis
from captioner.decoding.filters import Floats, Ints, SpecialIds, strike
from captioner.decoding.options import DecodingOptions


class Sampling:
    """Draws words from the model's distribution, sharpened by temperature and cut by top-k and top-p.

    Top-p ("nucleus") sampling: Holtzman et al. 2020, section 3.1. Every image has a random stream of
    its own, so that its captions do not depend on the images beside it.

    Args:
        seeds: one seed for each image.
        options: decoding options; ``num_captions`` captions are drawn for each image, in the order drawn.
        special: ids that are treated apart.
    """

    def __init__(self, seeds: list[int], options: DecodingOptions, special: SpecialIds) -> None:
        self.options, self.special = options, special
        self.width = options.width
        shape = (self.width, options.max_length + 1)
        self.uniforms = np.stack([uniforms(seed, shape) for seed in seeds])
        self.words = np.full((len(seeds), *shape), special.end)
        self.history = np.zeros(self.words.shape)
        self.ended = np.zeros((len(seeds), self.width), dtype=bool)
        self.running = np.arange(len(seeds))  # images that have not left

    def choose(self, log_probs: Floats, words: Ints) -> Choice:
        """Choose as :meth:`captioner.decoding.beam.BeamSearch.choose` does."""
        rows, slots = (~self.ended[self.running]).nonzero()
        images, time = self.running[rows], words.shape[2]
        of_rows = log_probs[rows, slots]
        drawn = self._draw(of_rows, words[rows, slots], self.uniforms[images, slots, time])
        self.words[images, slots, time] = drawn
        self.history[images, slots, time] = of_rows[np.arange(len(rows)), drawn]
        self.ended[images, slots] = drawn == self.special.end
        parents = np.tile(np.arange(self.width), (len(words), 1))
        return Choice(parents, self.words[self.running, :, time])

    def _draw(self, log_probs: Floats, words: Ints, uniforms: Floats) -> Ints:
        """Inverse transform sampling in float64.

        The exponentials of two libraries may differ in their last digit, which decides about a word only where the
        number drawn lies as close to the border between two.
        """
        temperature = 1.0 if self.options.temperature is None else self.options.temperature
        logits = log_probs.astype(np.float64) / temperature
        strike(logits, words, self.options, self.special)
        with np.errstate(invalid="ignore"):  # see `_pick`
            probs = np.exp(logits - logits.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
        if not self.options.top_k and self.options.top_p == 1:
            return _pick(probs, uniforms)
        order = np.argsort(-probs, axis=1, kind="stable")
        probs = np.take_along_axis(probs, order, axis=1)
        if self.options.top_k:
            probs[:, self.options.top_k :] = 0.0
        if self.options.top_p < 1:
            share = probs.cumsum(axis=1) / probs.sum(axis=1, keepdims=True)
            # A word stays while those before it hold less than the share; the first always stays.
            probs[:, 1:][share[:, :-1] >= self.options.top_p] = 0.0
        return order[np.arange(len(order)), _pick(probs, uniforms)]

    def leave(self) -> Ints:
        """Let images leave whose captions have all ended; give the rows of the others."""
        rows = np.flatnonzero(~self.ended[self.running].all(axis=1))
        self.running = self.running[rows]
        return rows

    def hypotheses(self) -> list[list[Hypothesis]]:
        """List the captions of each image, in the order drawn."""
        ends = self.words == self.special.end
        lengths = np.where(ends.any(axis=2), ends.argmax(axis=2), ends.shape[2] - 1)
        return [
            [hypothesis(ids[:n], log_probs[: n + 1]) for ids, log_probs, n in zip(*image, strict=True)]
            for image in zip(self.words.tolist(), self.history.tolist(), lengths.tolist(), strict=True)
        ]


def uniforms(seed: int, shape: tuple[int, ...]) -> np.typing.NDArray[np.float64]:
    """Draw numbers from 0 to 1, the very ones of ``torch.rand(shape, dtype=torch.float64)`` after this seed.

    Captions were once drawn by torch, and a seed still gives the same. Both use the Mersenne Twister and 32 bits of
    the seed; torch takes the lower 53 bits of two numbers of 32 bits.
    """
    halves = np.random.RandomState(seed & 0xFFFFFFFF).randint(0, 1 << 32, size=(*shape, 2), dtype=np.uint32)
    high, low = halves[..., 0].astype(np.uint64), halves[..., 1]
    bits = (high << np.uint64(32) | low) & np.uint64((1 << 53) - 1)
    drawn: np.typing.NDArray[np.float64] = bits * 2.0**-53
    return drawn


def _pick(probs: Floats, uniforms: Floats) -> Ints:
    """The place in each row of ``(rows, words)`` at which the sum of probabilities exceeds a share of all."""
    cumulative = probs.cumsum(axis=1)
    total = cumulative[:, -1:]
    places: Ints = np.count_nonzero(cumulative <= uniforms[:, None] * total, axis=1)
    # Rounding may leave the place behind the last that has a probability. Of probabilities that are not numbers the
    # first place is taken, so that training can skip such a step.
    last: Ints = np.count_nonzero(cumulative < total, axis=1)
    return np.minimum(places, last)
