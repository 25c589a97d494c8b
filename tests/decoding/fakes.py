"""A decoder that is a table of random numbers: any history has its own distribution of next words."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from captioner.decoding.beam import length_normalisation
from captioner.decoding.filters import Floats, Ints, SpecialIds

START, END, UNK = 0, 1, 2
SPECIAL = SpecialIds(start=START, end=END, banned=(START, UNK))


@dataclass(frozen=True)
class History:
    """Image number and words so far: ``(images, width, 1 + time)``."""

    words: Ints

    def select(self, images: Ints) -> History:
        return History(self.words[images])

    def reorder(self, parents: Ints) -> History:
        return History(self.words[np.arange(len(self.words))[:, None], parents])


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


class TableModel:
    """Logits drawn from a generator that is seeded by image and history.

    Args:
        vocabulary: number of words.
        seed: another seed is another model.
        scale: standard deviation of the logits.
        end_bias: added to the logit of ``<end>``; very negative for a model that never ends.
        dtype: of its log-probabilities; sums in float64 are compared with those that plain Python makes.

    Attributes:
        asked: ``(images, width)`` of each step so far.
    """

    def __init__(
        self, vocabulary: int, seed: int = 0, scale: float = 2.0, end_bias: float = 0.0, dtype: type = np.float64
    ) -> None:
        self.vocabulary, self.seed, self.scale, self.end_bias = vocabulary, seed, scale, end_bias
        self.dtype = dtype
        self.asked: list[tuple[int, ...]] = []

    def initial_state(self, regions: Floats) -> History:
        return History(regions[:, :1, :1].astype(np.int64))

    def step(self, words: Ints, state: History) -> tuple[Floats, History]:
        self.asked.append(words.shape)
        grown = np.concatenate((state.words, words[..., None]), axis=2)
        rows = [log_softmax(self.logits(tuple(row))) for row in grown.reshape(words.size, -1).tolist()]
        return np.array(rows, self.dtype).reshape(*words.shape, -1), History(grown)

    def logits(self, history: tuple[int, ...]) -> Floats:
        generator = np.random.default_rng((self.seed, *history))
        logits = generator.normal(size=self.vocabulary) * self.scale
        logits[END] += self.end_bias
        return logits

    def log_probs(self, image: int, words: tuple[int, ...]) -> list[float]:
        """Log-probability of each word and of the end after them."""
        history: tuple[int, ...] = (image, START)
        found = []
        for word in (*words, END):
            found.append(float(log_softmax(self.logits(history))[word]))
            history = (*history, word)
        return found


def images(count: int) -> Floats:
    """Region features that hold nothing but the number of the image."""
    return np.arange(count, dtype=np.float32).reshape(count, 1, 1)


def enumerate_captions(
    model: TableModel, image: int, max_length: int, penalty: float, min_length: int = 0
) -> list[tuple[float, tuple[int, ...]]]:
    """All captions of up to ``max_length`` words with their scores, best first."""
    words = [word for word in range(model.vocabulary) if word not in (START, END, UNK)]
    scored = []
    for length in range(min_length, max_length + 1):
        for caption in product(words, repeat=length):
            score = sum(model.log_probs(image, caption)) / length_normalisation(length, penalty)
            scored.append((score, caption))
    return sorted(scored, key=lambda item: -item[0])
