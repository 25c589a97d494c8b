"""A decoder that is a table of random numbers: any history has its own distribution of next words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from captioner.decoding.beam import length_normalisation
from captioner.decoding.filters import SpecialIds

START, END, UNK = 0, 1, 2
SPECIAL = SpecialIds(start=START, end=END, banned=(START, UNK))


@dataclass(frozen=True)
class History:
    """Image number and words so far, one row a caption."""

    rows: Tensor

    def expand(self, width: int) -> History:
        return replace(self, rows=self.rows.repeat_interleave(width, dim=0))

    def reorder(self, rows: Tensor) -> History:
        return replace(self, rows=self.rows[rows])

    def select(self, rows: Tensor) -> History:
        return self.reorder(rows)


class TableModel:
    """Logits drawn from a generator that is seeded by image and history.

    Args:
        vocabulary: number of words.
        seed: another seed is another model.
        scale: standard deviation of the logits.
        end_bias: added to the logit of ``<end>``; very negative for a model that never ends.
    """

    def __init__(self, vocabulary: int, seed: int = 0, scale: float = 2.0, end_bias: float = 0.0) -> None:
        self.vocabulary, self.seed, self.scale, self.end_bias = vocabulary, seed, scale, end_bias

    def initial_state(self, regions: Tensor) -> History:
        return History(regions[:, 0, :1].long())

    def step(self, words: Tensor, state: History) -> tuple[Tensor, History]:
        rows = torch.cat((state.rows, words.unsqueeze(1)), dim=1)
        return torch.stack([self.logits(tuple(row)) for row in rows.tolist()]), History(rows)

    def logits(self, history: tuple[int, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(hash((self.seed, *history)) % (1 << 62))
        logits = torch.randn(self.vocabulary, generator=generator) * self.scale
        logits[END] += self.end_bias
        return logits

    def log_probs(self, image: int, words: tuple[int, ...]) -> list[float]:
        """Log-probability of each word and of the end after them."""
        history: tuple[int, ...] = (image, START)
        found = []
        for word in (*words, END):
            found.append(float(self.logits(history).log_softmax(0)[word]))
            history = (*history, word)
        return found


def images(count: int) -> Tensor:
    """Region features that hold nothing but the number of the image."""
    return torch.arange(count).float().view(count, 1, 1)


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
