"""What programs are told, whichever way they ask: over HTTP or as MCP tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from captioner.errors import CaptionerError
from captioner.web.messages import for_visitor
from captioner.web.settings import Settings

if TYPE_CHECKING:
    from captioner.caption import Caption
    from captioner.scoring import Score
    from captioner.web.metrics import Metrics
    from captioner.web.service import Encoded, Service

MOST_PICTURES = 100  # in one call
_AT_ONCE = 8  # pictures of one call that are under way together


@dataclass(frozen=True)
class Word:
    """A word and the natural logarithm of its probability at its place."""

    word: str
    log_prob: float


@dataclass(frozen=True)
class Alternative:
    """A caption that the search considered too."""

    caption: str
    log_prob: float


@dataclass(frozen=True)
class Captioned:
    """A picture's caption, word by word, and its alternatives; all logarithms are natural."""

    caption: str
    log_prob: float
    words: list[Word]
    end_log_prob: float
    alternatives: list[Alternative]


@dataclass(frozen=True)
class Scored:
    """How probable a sentence is for a picture, word by word; all logarithms are natural."""

    log_prob: float
    perplexity: float
    words: list[Word]
    end_log_prob: float


@dataclass(frozen=True)
class Record:
    """One of several pictures: its caption, or why there is none."""

    name: str
    caption: str | None = None
    log_prob: float | None = None
    error: str | None = None


@contextmanager
def answering(metrics: Metrics, endpoint: str, refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Count a call; a failure becomes a sentence for the caller.

    Args:
        metrics: where it is counted.
        endpoint: as what.
        refusal: makes an exception of the sentence.
    """
    try:
        with metrics.request(endpoint):
            yield
    except Exception as error:
        raise refusal(for_visitor(error)) from error


def chosen(
    method: str, beam_size: float, temperature: float, top_p: float, max_length: float, seed: float
) -> Settings:
    """Settings of a program, which writes 0 for what suits the weights.

    Raises:
        OptionError: a value is out of its bounds.
    """
    return Settings.of([method, beam_size or None, temperature, top_p, 1, max_length or None, seed])


def captioned(service: Service, encoded: Encoded, settings: Settings) -> Captioned:
    """Write a caption.

    Raises:
        CaptionerError: as :meth:`captioner.web.service.Service.caption`.
    """
    best, *others = service.caption(encoded, settings.options(service.options()))
    alternatives = [Alternative(other.text, other.log_prob) for other in others]
    return Captioned(best.text, best.log_prob, _words(best), best.end_log_prob, alternatives)


def scored(service: Service, encoded: Encoded, text: object) -> Scored:
    """Tell how probable a sentence is.

    Raises:
        CaptionerError: as :meth:`captioner.web.service.Service.score`, or ``text`` is no text.
    """
    if not isinstance(text, str):
        raise CaptionerError("the sentence must be a text")
    found = service.score(encoded, text)
    return Scored(found.log_prob, found.perplexity, _words(found), found.end_log_prob)


def recorded(service: Service, names: Sequence[str], encode: Callable[[int], Encoded]) -> list[Record]:
    """Caption several pictures; one that cannot be read becomes a record with an error.

    Args:
        service: the model.
        names: of the pictures.
        encode: reads and encodes the picture at a place of ``names``.

    Raises:
        CaptionerError: there are none or too many.
    """
    if not names:
        raise CaptionerError("send at least one picture")
    if len(names) > MOST_PICTURES:
        raise CaptionerError(f"send at most {MOST_PICTURES} pictures at once, not {len(names)}")

    def record(place: int, name: str) -> Record:
        try:
            best = service.caption(encode(place))[0]
            return Record(name, best.text, best.log_prob)
        except Exception as error:
            return Record(name, error=for_visitor(error))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(record, range(len(names)), names))


def _words(sentence: Caption | Score) -> list[Word]:
    return [Word(*pair) for pair in zip(sentence.words, sentence.word_log_probs, strict=True)]
