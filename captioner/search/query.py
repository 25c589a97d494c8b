"""The pictures that a text fits best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from captioner.scoring import known_words
from captioner.search.gallery import Gallery


@dataclass(frozen=True)
class Match:
    """A picture that was found.

    Attributes:
        path: its file.
        log_prob: log P(text | picture).
        score: ``log_prob`` minus the mean of the text's over all pictures searched: how many nats the text
            is more probable here than it is on average. It makes the matches of different texts comparable.
    """

    path: Path
    log_prob: float
    score: float


@dataclass(frozen=True)
class Answer:
    """What a search found.

    Attributes:
        words: the words searched for.
        matches: all pictures, the best first; pictures that fit equally well in the gallery's order.
        mean_log_prob: of the text over all pictures.
    """

    words: tuple[str, ...]
    matches: Sequence[Match]
    mean_log_prob: float


def search(gallery: Gallery, text: str) -> Answer:
    """Order pictures by how well a text fits them.

    Args:
        gallery: at least one picture.
        text: a sentence like a caption.

    Raises:
        UnknownWordsError: the text holds words that the model does not know.
        OptionError: the text is too long or no UTF-8.
    """
    words = known_words(text, gallery.vocabulary)
    log_probs = gallery.log_probs([gallery.vocabulary.encode(words)])[0]
    mean = float(log_probs.mean())
    order = log_probs.argsort(descending=True, stable=True).tolist()
    values = log_probs.tolist()
    matches = [Match(gallery.paths[place], values[place], values[place] - mean) for place in order]
    return Answer(tuple(words), matches, mean)
