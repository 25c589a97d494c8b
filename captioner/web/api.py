"""What programs get, whether they ask over HTTP or through MCP tools; and the figures of all their requests."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from captioner.errors import CaptionerError
from captioner.web import gradio_fixes, render, single
from captioner.web.service import Encoded, Service
from captioner.web.settings import METHODS, Settings

MOST_IMAGES = 100  # in one call
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format
_AT_ONCE = 8  # images of one call that are under way together
_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)  # buckets of the histogram


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


class Metrics:
    """Count the requests of one server, and those that wait for the model, for a monitoring system."""

    def __init__(self, queue_length: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        labelled: dict[str, Any] = {"labelnames": ["endpoint"], "registry": self._registry}
        self._requests = Counter("captioner_requests", "Requests, by endpoint.", **labelled)
        self._errors = Counter("captioner_errors", "Requests that failed, by endpoint.", **labelled)
        latency = "Time from a request to its answer, by endpoint."
        self._latency = Histogram("captioner_latency_seconds", latency, buckets=_SECONDS, **labelled)
        queue = Gauge("captioner_queue_length", "Requests that wait for the model.", registry=self._registry)
        queue.set_function(queue_length)

    @contextmanager
    def request(self, endpoint: str) -> Iterator[None]:
        """Count a request and time it; an exception counts as an error."""
        self._requests.labels(endpoint).inc()
        start = time.perf_counter()
        try:
            yield
        except Exception:
            self._errors.labels(endpoint).inc()
            raise
        finally:
            self._latency.labels(endpoint).observe(time.perf_counter() - start)

    def refused(self, endpoint: str) -> None:
        """Count a request that was refused at once."""
        self._requests.labels(endpoint).inc()
        self._errors.labels(endpoint).inc()

    def text(self) -> bytes:
        """Write all figures in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)


@contextmanager
def answering(metrics: Metrics, endpoint: str, refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Count a call, and turn a failure into a sentence for the caller, as an exception made by ``refusal``."""
    try:
        with metrics.request(endpoint):
            yield
    except Exception as error:
        raise refusal(render.for_visitor(error)) from error


def chosen(method: str, beam_size: float, temperature: float, top_p: float, max_length: float, seed: float) -> Settings:
    """Make settings of what a program gives; 0 stands for what suits the weights.

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
    return Captioned(best.text, best.log_prob, _words(best.words, best.word_log_probs), best.end_log_prob, alternatives)


def scored(service: Service, encoded: Encoded, text: object) -> Scored:
    """Score a sentence.

    Raises:
        CaptionerError: as :meth:`captioner.web.service.Service.score`, or ``text`` is no text.
    """
    if not isinstance(text, str):
        raise CaptionerError("the sentence must be a text")
    found = service.score(encoded, text)
    return Scored(found.log_prob, found.perplexity, _words(found.words, found.word_log_probs), found.end_log_prob)


def recorded(service: Service, names: Sequence[str], encode: Callable[[int], Encoded]) -> list[Record]:
    """Caption several images; one that cannot be read becomes a record with an error.

    Args:
        service: the model.
        names: of the images.
        encode: reads and encodes the image at a place in ``names``.

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
            return Record(name, error=render.for_visitor(error))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(record, range(len(names)), names))


def _words(words: Sequence[str], log_probs: Sequence[float]) -> list[Word]:
    return list(map(Word, words, log_probs))


def add_endpoints(service: Service, metrics: Metrics) -> None:
    """Add the endpoints to the page that is being built; none of them is visible there."""
    endpoints = _Endpoints(service, metrics)
    with gr.Column(visible=False):
        image = gradio_fixes.no_addresses(gr.Image(type="filepath", label="image"))
        images = gradio_fixes.no_addresses(gr.File(file_count="multiple", label="images"))
        sentence = gr.Textbox(label="text")
        method = gr.Radio(METHODS, value="beam", label="method")
        beam_size = gr.Number(0, label="beam_size", precision=0)
        temperature = gr.Number(0.8, label="temperature")
        top_p = gr.Number(0.9, label="top_p")
        max_length = gr.Number(0, label="max_length", precision=0)
        seed = gr.Number(0, label="seed", precision=0)
        choices = [method, beam_size, temperature, top_p, max_length, seed]
        text, number, details = gr.Textbox(label="caption"), gr.Number(label="log_prob"), gr.JSON(label="details")
        shared: dict[str, Any] = {"preprocess": False, "concurrency_limit": None, "show_progress": "hidden"}
        for function, inputs, outputs in (
            (endpoints.caption, [image, *choices], [text, details]),
            (endpoints.caption_batch, [images], [details]),
            (endpoints.score, [image, sentence], [number, details]),
        ):
            gr.Button(visible=False).click(function, inputs, outputs, api_name=function.__name__, **shared)


@dataclass(frozen=True)
class _Endpoints:
    """The functions behind the endpoints; their names, parameters and docstrings are those that programs see."""

    service: Service
    metrics: Metrics

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
        with answering(self.metrics, "/caption", _refusal):
            settings = chosen(method, beam_size, temperature, top_p, max_length, seed)
            details = asdict(captioned(self.service, single.encode_upload(self.service, image), settings))
            return details.pop("caption"), details

    def caption_batch(self, images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Caption several images.

        Args:
            images: the images, 100 at most.

        Returns:
            In the same order: for each its name with caption and log_prob, or with error.
        """
        with answering(self.metrics, "/caption_batch", _refusal):
            names = [render.shown_name(image.get("orig_name")) for image in images or ()]
            found = recorded(self.service, names, lambda place: single.encode_upload(self.service, images[place]))
            return [{k: v for k, v in asdict(record).items() if v is not None} for record in found]

    def score(self, image: Mapping[str, Any], text: str) -> tuple[float, dict[str, Any]]:
        """Tell how probable a sentence is for an image.

        Args:
            image: the image.
            text: the sentence.

        Returns:
            log P(text | image), the natural logarithm; and perplexity and the log-probability of each word.
        """
        with answering(self.metrics, "/score", _refusal):
            found = asdict(scored(self.service, single.encode_upload(self.service, image), text))
            return found.pop("log_prob"), found


def _refusal(message: str) -> gr.Error:
    return gr.Error(message, duration=None, print_exception=False)
