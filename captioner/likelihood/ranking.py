"""Texts in the order in which they suit a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from captioner.captioner import Captioner
from captioner.errors import UnknownWordsError
from captioner.scoring import Score, known_words


@dataclass(frozen=True)
class Unscored:
    """A text that cannot be scored.

    Attributes:
        text: as it was given.
        unknown: the words that the model does not know.
        reason: names them, with the nearest known words.
    """

    text: str
    unknown: tuple[str, ...]
    reason: str


def score_each(
    captioner: Captioner, regions: Tensor, texts: Sequence[str], *, runners_up: int = 0
) -> list[Score | Unscored]:
    """Score many texts for one picture; those with unknown words do not keep the others from it.

    Args:
        captioner: the model.
        regions: of the picture, ``(1, regions, channels)``.
        texts: any number.
        runners_up: see :meth:`captioner.captioner.Captioner.score`.

    Returns:
        What became of each text, in the order given.

    Raises:
        OptionError: a text is too long or no UTF-8.
    """
    refused = [_refused(text, captioner) for text in texts]
    known = [text for text, unscored in zip(texts, refused, strict=True) if unscored is None]
    scores = iter(captioner.score(regions.expand(len(known), -1, -1), known, runners_up=runners_up))
    return [next(scores) if unscored is None else unscored for unscored in refused]


def _refused(text: str, captioner: Captioner) -> Unscored | None:
    try:
        known_words(text, captioner.vocabulary)
    except UnknownWordsError as error:
        return Unscored(text, error.words, str(error))
    return None


def rank(
    captioner: Captioner, regions: Tensor, texts: Sequence[str], *, per_word: bool = False
) -> list[Score | Unscored]:
    """Order texts by their log-probability for a picture.

    Args:
        captioner: the model.
        regions: of the picture, ``(1, regions, channels)``.
        texts: any number.
        per_word: order by the mean over words and end instead, which does not favour short texts.

    Returns:
        The most probable text first, equally probable ones in the order given; those with unknown words
        last.

    Raises:
        OptionError: a text is too long or no UTF-8.
    """

    def key(judged: Score | Unscored) -> tuple[bool, float]:
        if isinstance(judged, Unscored):
            return True, 0.0
        return False, -(judged.mean_log_prob if per_word else judged.log_prob)

    return sorted(score_each(captioner, regions, texts), key=key)
