"""What programs are told, whichever way they ask: over HTTP or as MCP tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from captioner.errors import CaptionerError
from captioner.web.gradio_fixes import no_addresses
from captioner.web.messages import for_visitor, shown_name
from captioner.web.settings import METHODS, Settings
from captioner.web.single import encode_upload

if TYPE_CHECKING:
    from captioner.caption import Caption
    from captioner.scoring import Score
    from captioner.web.metrics import Metrics
    from captioner.web.service import Encoded, Service


MOST_IMAGES = 100  # in one call
_AT_ONCE = 8  # images of one call that are under way together


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
    """An image's caption, word by word, and its alternatives; all logarithms are natural."""

    caption: str
    log_prob: float
    words: list[Word]
    end_log_prob: float
    alternatives: list[Alternative]


@dataclass(frozen=True)
class Scored:
    """How probable a sentence is for an image, word by word; all logarithms are natural."""

    log_prob: float
    perplexity: float
    words: list[Word]
    end_log_prob: float


@dataclass(frozen=True)
class Record:
    """One of several images: its caption, or why there is none."""

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


def chosen(method: str, beam_size: float, temperature: float, top_p: float, max_length: float, seed: float) -> Settings:
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
    """Caption several images; one that cannot be read becomes a record with an error.

    Args:
        service: the model.
        names: of the images.
        encode: reads and encodes the image at a place of ``names``.

    Raises:
        CaptionerError: there are none or too many.
    """
    if not names:
        raise CaptionerError("send at least one image")
    if len(names) > MOST_IMAGES:
        raise CaptionerError(f"send at most {MOST_IMAGES} images at once, not {len(names)}")

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


def add_endpoints(service: Service, metrics: Metrics) -> None:
    """Add the endpoints to the page that is being built; nothing of them is seen there."""
    endpoints = _Endpoints(service, metrics)
    with gr.Column(visible=False):
        image = no_addresses(gr.Image(type="filepath", label="image"))
        images = no_addresses(gr.File(file_count="multiple", label="images"))
        sentence = gr.Textbox(label="text")
        method = gr.Radio(METHODS, value="beam", label="method")
        beam_size = gr.Number(0, label="beam_size", precision=0)
        temperature = gr.Number(0.8, label="temperature")
        top_p = gr.Number(0.9, label="top_p")
        max_length = gr.Number(0, label="max_length", precision=0)
        seed = gr.Number(0, label="seed", precision=0)
        choices = [method, beam_size, temperature, top_p, max_length, seed]
        text, number, details = (
            gr.Textbox(label="caption"),
            gr.Number(label="log_prob"),
            gr.JSON(label="details"),
        )
        _endpoint(endpoints.caption, [image, *choices], [text, details])
        _endpoint(endpoints.caption_batch, [images], [details])
        _endpoint(endpoints.score, [image, sentence], [number, details])


class _Endpoints:
    """The functions behind the endpoints, which are called as these are."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics

    def caption(
        self,
        image: Mapping[str, Any],
        method: str,
        beam_size: float,
        temperature: float,
        top_p: float,
        max_length: float,
        seed: float,
    ) -> tuple[str, dict[str, Any]]:
        """Write a caption for an image.

        Args:
            image: the image.
            method: "beam" (the most probable caption), "greedy" (word by word) or "sample" (varied).
            beam_size: captions that beam search keeps in the making, 1 to 10; 0 for what suits the model.
            temperature: of sampling, 0.1 to 2.
            top_p: sample only from the likeliest words that together have this probability.
            max_length: most words of a caption, 1 to 50; 0 for what suits the model.
            seed: of sampling.

        Returns:
            The caption; and its words, log-probabilities and alternatives.
        """
        with answering(self._metrics, "/caption", _refusal):
            settings = chosen(method, beam_size, temperature, top_p, max_length, seed)
            details = asdict(captioned(self._service, encode_upload(self._service, image), settings))
            return details.pop("caption"), details

    def caption_batch(self, images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Caption several images.

        Args:
            images: the images, 100 at most.

        Returns:
            In the same order: for each its name with caption and log_prob, or with error.
        """
        with answering(self._metrics, "/caption_batch", _refusal):
            names = [shown_name(image.get("orig_name")) for image in images or ()]
            found = recorded(self._service, names, lambda place: encode_upload(self._service, images[place]))
            return [{k: v for k, v in asdict(record).items() if v is not None} for record in found]

    def score(self, image: Mapping[str, Any], text: str) -> tuple[float, dict[str, Any]]:
        """Tell how probable a sentence is for an image.

        Args:
            image: the image.
            text: the sentence.

        Returns:
            log P(text | image), the natural logarithm; and perplexity and the log-probability of each word.
        """
        with answering(self._metrics, "/score", _refusal):
            found = asdict(scored(self._service, encode_upload(self._service, image), text))
            return found.pop("log_prob"), found


def _endpoint(function: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
    gr.Button(visible=False).click(
        function,
        inputs,
        outputs,
        preprocess=False,
        api_name=function.__name__,
        concurrency_limit=None,
        show_progress="hidden",
    )


def _refusal(message: str) -> gr.Error:
    return gr.Error(message, duration=None, print_exception=False)
