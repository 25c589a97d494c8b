"""One image: its captions, how the best came about, and how a sentence of the visitor's own compares."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from captioner.web.messages import shown_name
from captioner.web.settings import Settings

if TYPE_CHECKING:
    from captioner.caption import Caption
    from captioner.decoding.options import DecodingOptions
    from captioner.images import Pixels
    from captioner.scoring import Score
    from captioner.web.service import Encoded, Service

_RUNNERS_UP = 4  # the word itself is often among them


@dataclass(frozen=True)
class Answer:
    """What the model says of an image.

    Attributes:
        captions: the first is the caption, the others its alternatives.
        score: of the first, word by word with the runners-up and where the model looked.
        seen: uint8 ``(size, size, 3)``, the image as the model saw it.
        options: how the captions were written.
        looking: seconds that reading and encoding took, if only once for several answers.
        writing: seconds that the captions took.
    """

    captions: tuple[Caption, ...]
    score: Score
    seen: Pixels
    options: DecodingOptions
    looking: float
    writing: float


@dataclass(frozen=True)
class Comparison:
    """A visitor's sentence beside the model's caption of the same image."""

    own: Score
    model: Score


def answer(
    service: Service, upload: Mapping[str, Any] | None, settings: Settings, weights: str | None = None
) -> Answer:
    """Caption an uploaded image.

    Args:
        service: the model.
        upload: Gradio's record of the file, with ``path`` and ``orig_name``; None if there is none.
        settings: the visitor's choices.
        weights: by name; the default ones if absent.

    Raises:
        CaptionerError: there is no image, or it cannot be read; the message is for the visitor.
    """
    encoded = encode_upload(service, upload, weights)
    start = time.perf_counter()
    options = settings.options(service.options(weights))
    captions = tuple(service.caption(encoded, options))
    writing = time.perf_counter() - start
    # From the words, not from the sentence: these go through the tokeniser unchanged.
    words = " ".join(captions[0].words)
    score = service.score(encoded, words, runners_up=_RUNNERS_UP, attention=True)
    return Answer(captions, score, encoded.pixels, options, encoded.seconds, writing)


def compare(
    service: Service,
    upload: Mapping[str, Any] | None,
    text: str,
    settings: Settings,
    weights: str | None = None,
) -> Comparison:
    """Score a visitor's sentence, and the model's own caption beside it.

    Raises:
        UnknownWordsError: the sentence has words that the model does not know.
        CaptionerError: there is no image or no sentence, or one cannot be read.
    """
    encoded = encode_upload(service, upload, weights)
    own = service.score(encoded, text)
    best = service.caption(encoded, settings.options(service.options(weights)))[0]
    return Comparison(own, service.score(encoded, " ".join(best.words)))


def encode_upload(service: Service, upload: Mapping[str, Any] | None, weights: str | None = None) -> Encoded:
    """Encode a file that Gradio received.

    Raises:
        CaptionerError: as :func:`answer`.
    """
    from captioner.web.gradio_fixes import uploaded_file

    path = uploaded_file(upload)
    name = shown_name((upload or {}).get("orig_name"))
    return service.encode(path, name=name, weights=weights or None)
