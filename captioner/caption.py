"""A caption and what is known of it."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Caption:
    """A caption and how probable the model finds it.

    Attributes:
        text: readable sentence. It says the name of a tag that the vocabulary has no word for (penguin)
            where ``words`` has the one in its place (bird).
        log_prob: natural logarithm of P(caption | image): all words and the end of the sentence.
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
    words: tuple[str, ...]
    word_log_probs: tuple[float, ...]
    end_log_prob: float
    attention: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    confidence: float | None = None
    tags: tuple[str, ...] = ()
