"""A caption and what is known of it, such as how sure it is (docs/confidence.md)."""

import math
from dataclasses import dataclass, field

import numpy as np

from captioner.errors import OptionError
from captioner.options import check, option

UNSURE = 1 / 3
"""Confidence below which a caption is more than twice as likely to be bad as to be good."""
_LARGEST = 1_000_000  # no fitted coefficient comes near


@dataclass(frozen=True)
class Caption:
    """A caption and how probable the model finds it.

    Outputs keep ``text``, ``log_prob`` and ``confidence``; a caption that is read back from one has no more.

    Attributes:
        text: readable sentence. It says the name of a tag that the vocabulary has no word for (penguin)
            where ``words`` has the one in its place (bird).
        log_prob: natural logarithm of P(caption | image): all words and the end of the sentence. Like all
            log-probabilities here to six decimals, which is what float32 computes.
        words: tokens of the sentence.
        word_log_probs: log-probability of each word, given the image and the words before it.
        end_log_prob: log-probability of ending after the last word; with ``word_log_probs`` it sums to
            ``log_prob``.
        attention: for each word where the model looked when it wrote it, float32 ``(words, rows, columns)``
            over the image as the encoder sees it; each map sums to one, or with adaptive attention to less
            where the model relied on the words before. None for a model without attention, or where it was
            not asked for.
        confidence: probability that it is a good caption, see docs/confidence.md; None where the checkpoint
            is not calibrated, and for captions drawn by chance.
        tags: what the encoder's classifier saw and the caption was made to name, see
            ``DecodingOptions.tag_threshold``.
    """

    text: str
    log_prob: float
    words: tuple[str, ...] = ()
    word_log_probs: tuple[float, ...] = ()
    end_log_prob: float = 0.0
    attention: np.typing.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    confidence: float | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """What turns the log-probabilities of a caption into a confidence, and how well it does.

    The confidence is ``1 / (1 + exp(-(intercept + per_nat * m + per_word * n)))`` with ``m`` the mean
    log-probability over the words and the end, and ``n`` the number of words.

    Attributes:
        intercept: see above.
        per_nat: see above.
        per_word: see above.
        good: CIDEr-D from which on a caption counts as good.
        data: data set and split that it was fitted on.
        photos: how many those images were.
        base_rate: share of their captions that were good.
        log_loss: mean negative log-likelihood in nats; like the next two cross-validated.
        brier: mean squared difference of confidence and outcome.
        ece: expected calibration error over ten bins.

    Raises:
        OptionError: a value is of the wrong type or impossible.
    """

    intercept: float = option(low=-_LARGEST, high=_LARGEST)
    per_nat: float = option(low=-_LARGEST, high=_LARGEST)
    per_word: float = option(low=-_LARGEST, high=_LARGEST)
    good: float = option(low=-_LARGEST, high=_LARGEST)
    data: str = option()
    photos: int = option(low=0, high=_LARGEST)
    base_rate: float = option(low=-_LARGEST, high=_LARGEST)
    log_loss: float = option(low=-_LARGEST, high=_LARGEST)
    brier: float = option(low=-_LARGEST, high=_LARGEST)
    ece: float = option(low=-_LARGEST, high=_LARGEST)

    def __post_init__(self) -> None:
        check(self, "confidence")
        if not isinstance(self.data, str):
            raise OptionError(f"confidence: data must be a text, not {str(self.data)[:40]!r}")

    @property
    def meaning(self) -> str:
        """What a confidence is the probability of."""
        return (
            f"probability that the caption's CIDEr-D against the human captions of the image is at least "
            f"{self.good:g}, with the document frequencies of {self.data}"
        )

    def confidence(self, log_prob: float, words: int) -> float:
        """Compute the confidence of a caption.

        Args:
            log_prob: log P(caption | image), the end included.
            words: how many it has, the end not counted.
        """
        mean, count = features(log_prob, words)
        score = self.intercept + self.per_nat * mean + self.per_word * count
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, score))))


def features(log_prob: float, words: int) -> tuple[float, float]:
    """Compute what a confidence is made of: the mean log-probability over words and end, and the number of words."""
    return log_prob / (words + 1), float(words)


def precise(value: float) -> float:
    """Round a logarithm or a probability to the digits that are not noise: float32 computes some six decimals."""
    return round(value, 6) + 0.0  # no -0.0
