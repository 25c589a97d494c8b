"""What a way of choosing the next words is given and gives: a strategy, and the hypotheses that it ends with.

A strategy begins with ``width`` captions for each image, as rows ``image * width + slot``. Those that
there are stand in :mod:`captioner.decoding.beam` and :mod:`captioner.decoding.sampling`.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

NEVER = float("-inf")
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


class Strategy(Protocol):
    """What the decoding loop asks of a strategy.

    Attributes:
        width: captions in the making for each image.
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
        """For each image ``num_captions`` captions (fewer if no more exist)."""


def hypotheses(words: Tensor, history: Tensor, lengths: Tensor, scores: Tensor) -> list[list[Hypothesis]]:
    """Finished captions out of tensors; a score of minus infinity means that there is none.

    Args:
        words: ``(images, captions, time)`` ids.
        history: ``(images, captions, time)`` log-probability of each word, then that of the end.
        lengths: ``(images, captions)`` words without the end.
        scores: ``(images, captions)``.
    """
    results: list[list[Hypothesis]] = []
    rows = zip(words.tolist(), history.tolist(), lengths.tolist(), scores.tolist(), strict=True)
    for image in rows:
        found = []
        for ids, log_probs, length, score in zip(*image, strict=True):
            if score == NEVER:
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
