"""What programs get, over HTTP, with Gradio's client or through MCP tools; and the figures of all their requests."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Literal, TypeAlias

import gradio as gr
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, UploadFile
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette import exceptions, requests

from captioner import Caption, Score
from captioner.errors import BusyError, CaptionerError, OptionError
from captioner.html import shown_name
from captioner.options import typed_fields
from captioner.web import gradio_fixes, render
from captioner.web.options import ServingOptions
from captioner.web.service import Prepared, Service
from captioner.web.settings import Settings

MOST_IMAGES = 100  # in one call
MOST_SENTENCES = 100  # to score in one call
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format
_AT_ONCE = 8  # images of one call that are under way together
_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)  # buckets of the histogram
_BYTES = "application/octet-stream"
_IN_MEMORY = 2**20  # bytes of an image that waits; one that is larger waits on disk

Images: TypeAlias = list[tuple[str, BinaryIO]]
Values: TypeAlias = list[tuple[str, str]]


@dataclass(frozen=True)
class Word:
    """A word and the natural logarithm of its probability at its place."""

    word: str
    log_prob: float


@dataclass(frozen=True)
class Candidate:
    """One of the captions that the search found or that were drawn."""

    caption: str
    log_prob: float
    confidence: float | None = None


@dataclass(frozen=True)
class Captioned:
    """An image's caption, word by word, and all captions that were found, this one first; logarithms are natural."""

    image: str
    caption: str
    log_prob: float
    words: list[Word]
    end_log_prob: float
    captions: list[Candidate]
    confidence: float | None = None


@dataclass(frozen=True)
class ScoredCaption:
    """How probable a sentence is for an image, word by word; all logarithms are natural."""

    caption: str
    log_prob: float
    perplexity: float
    words: list[Word]
    end_log_prob: float


@dataclass(frozen=True)
class Scored:
    """Sentences for an image, in the order in which they were sent."""

    image: str
    captions: list[ScoredCaption]


@dataclass(frozen=True)
class Record:
    """One of several images: its caption, or why there is none; as ``captioner caption --format jsonl`` writes it."""

    image: str
    caption: str | None = None
    log_prob: float | None = None
    confidence: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Failure:
    """Why there is no answer, in one sentence."""

    error: str


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
    def request(self, endpoint: str, refusal: Callable[[Exception], Exception] = lambda error: error) -> Iterator[None]:
        """Count a request and time it; an exception counts as an error, and becomes what ``refusal`` makes of it."""
        self._requests.labels(endpoint).inc()
        with self._latency.labels(endpoint).time():
            try:
                yield
            except Exception as error:
                self._errors.labels(endpoint).inc()
                raise refusal(error) from error

    def text(self) -> bytes:
        """Write all figures in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)


def chosen(method: str, beam_size: float, temperature: float, top_p: float, max_length: float, seed: float) -> Settings:
    """Make settings of what a program gives; 0 stands for what suits the weights."""
    return Settings.of([method, beam_size or None, temperature, top_p, 1, max_length or None, seed])


def captioned(service: Service, image: Prepared, name: str, settings: Settings) -> Captioned:
    """Write a caption."""
    found = service.caption(image, settings.options(service.options()))
    best, captions = found[0], [Candidate(each.text, each.log_prob, each.confidence) for each in found]
    return Captioned(name, best.text, best.log_prob, _words(best), best.end_log_prob, captions, best.confidence)


def scored(service: Service, image: Prepared, texts: Sequence[Any]) -> list[ScoredCaption]:
    """Score sentences."""
    if not all(isinstance(text, str) for text in texts):
        raise CaptionerError("the sentence must be a text")
    return [
        ScoredCaption(each.text, each.log_prob, each.perplexity, _words(each), each.end_log_prob)
        for each in service.scores(image, texts)
    ]


def recorded(
    service: Service, names: Sequence[str], prepare: Callable[[int], Prepared], settings: Settings
) -> list[Record]:
    """Caption several images, given their names and what prepares each; one that fails becomes a record of why."""
    if not names:
        raise CaptionerError("send at least one image")
    if len(names) > MOST_IMAGES:
        raise CaptionerError(f"send at most {MOST_IMAGES} images at once, not {len(names)}")
    options = settings.options(service.options())

    def record(place: int, name: str) -> Record:
        try:
            best = service.caption(prepare(place), options)[0]
            return Record(name, best.text, best.log_prob, best.confidence)
        except Exception as error:
            return Record(name, error=render.for_visitor(error))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(record, range(len(names)), names))


def _words(sentence: Caption | Score) -> list[Word]:
    return list(map(Word, sentence.words, sentence.word_log_probs))


def routes(service: Service, metrics: Metrics, options: ServingOptions) -> APIRouter:
    """Make the three routes."""
    threads = CapacityLimiter(options.most_calls)
    failures = {400: "Not as it should be", 401: "Without password", 408: "Stopped"}
    failures |= {413: "Too large", 415: "Of another type", 503: "Too many wait"}
    described: Any = {status: {"model": Failure, "description": text} for status, text in failures.items()}
    router = APIRouter(prefix="/api", responses=described)

    def prepare(name: str, file: BinaryIO) -> Prepared:
        return service.prepare(file, name=name, remember=False)

    def caption(images: Images, values: Values) -> Captioned:
        """Caption an image, with log-probabilities word by word and the other captions that were found."""
        settings, (name, file) = _settings(values), _only(images)
        return captioned(service, prepare(name, file), name, settings)

    def caption_batch(images: Images, values: Values) -> list[Record]:
        """Caption up to 100 images; in the same order, each with its caption or with an error."""
        return recorded(service, [name for name, _ in images], lambda place: prepare(*images[place]), _settings(values))

    def score(images: Images, values: Values) -> Scored:
        """Tell how probable sentences are for an image: log P(caption | image), perplexity, each word."""
        texts, (name, file) = _sentences(values), _only(images)
        return Scored(name, scored(service, prepare(name, file), texts))

    def offer(work: Callable[[Images, Values], Any], answer: Any, takes: dict[str, Any]) -> None:
        name = work.__name__

        async def answered(request: Request) -> Any:
            with metrics.request(f"/api/{name}", _http_error):
                service.check_room()
                async with _received(request, options.max_upload_bytes) as sent:
                    return await to_thread.run_sync(work, *sent, limiter=threads)

        more: dict[str, Any] = {"description": work.__doc__, "openapi_extra": takes, "operation_id": name, "name": name}
        router.post(f"/{name}", response_model=answer, response_model_exclude_none=True, **more)(answered)

    offer(caption, Captioned, _takes(_SETTINGS))
    offer(caption_batch, list[Record], _takes(_SETTINGS, several=True))
    offer(score, Scored, _takes(_SENTENCES, needed=["caption"]))
    return router


@asynccontextmanager
async def _received(request: Request, largest: int) -> AsyncIterator[tuple[Images, Values]]:
    """Receive images, in a form or one as the body, and the values of form and query; large images wait on disk."""
    too_large = exceptions.HTTPException(413, f"An image is larger than {largest / 1e6:g} MB; send a smaller one.")
    kind = request.headers.get("content-type", _BYTES).partition(";")[0].strip().lower()
    values = request.query_params.multi_items()
    if kind == "multipart/form-data":
        async with request.form(max_files=MOST_IMAGES + 1, max_fields=MOST_SENTENCES + len(_SETTINGS)) as form:
            parts = form.multi_items()
            files = [part for _, part in parts if not isinstance(part, str)]
            if any((name == "image") == isinstance(part, str) for name, part in parts):
                raise OptionError("send images as files called `image`, and nothing else as a file")
            if any((file.size or 0) > largest for file in files):
                raise too_large
            values += [(name, part) for name, part in parts if isinstance(part, str)]
            yield [(shown_name(file.filename), file.file) for file in files], values
    elif kind.startswith("image/") or kind == _BYTES:
        with SpooledTemporaryFile(_IN_MEMORY) as file:
            body = UploadFile(file, size=0)  # type: ignore[arg-type]  # it is as good as a BinaryIO
            async for part in request.stream():
                await body.write(part)
                if (body.size or 0) > largest:
                    raise too_large
            await body.seek(0)
            yield [(shown_name(None), body.file)], values
    else:
        raise exceptions.HTTPException(415, f"Send a form (multipart/form-data), or an image as {_BYTES} or image/*.")


def _only(images: Images) -> tuple[str, BinaryIO]:
    if len(images) != 1:
        raise OptionError("send one image, as the file `image`")
    return images[0]


def _settings(values: Values) -> Settings:
    given: dict[str, Any] = {}
    kinds = {item.name: kind for item, kind in typed_fields(Settings)}
    for name, text in values:
        if name not in kinds:
            raise OptionError(f"there is no field {name[:40]!r}", f"there are image, {', '.join(kinds)}")
        if name in given:
            raise OptionError(f"`{name}` was sent twice", "send it once")
        given[name] = text
        with suppress(ValueError):  # the settings say what they want instead
            given[name] = kinds[name](text)
    return Settings(**{"draws": 1} | given)


def _sentences(values: Values) -> list[str]:
    if odd := {name for name, _ in values} - {"caption"}:
        raise OptionError(f"there is no field {min(odd)[:40]!r}", "there are image and caption")
    if not 1 <= len(values) <= MOST_SENTENCES:
        raise OptionError(f"send 1 to {MOST_SENTENCES} sentences, each as a field `caption`")
    return [text for _, text in values]


def _http_error(error: Exception) -> exceptions.HTTPException:
    if isinstance(error, exceptions.HTTPException):
        return error
    if isinstance(error, requests.ClientDisconnect):
        return exceptions.HTTPException(400, "The connection was closed.")
    if isinstance(error, UnicodeError):
        return exceptions.HTTPException(400, "The form is not in the charset that it names; send UTF-8.")
    if isinstance(error, BusyError):
        return exceptions.HTTPException(503, render.for_visitor(error), {"retry-after": "1"})
    return exceptions.HTTPException(400 if isinstance(error, CaptionerError) else 500, render.for_visitor(error))


_NAMES = {"help": "description", "low": "minimum", "high": "maximum", "choices": "enum"}
_SETTINGS = {
    item.name: {"type": {int: "integer", float: "number"}.get(kind, "string")}
    | {_NAMES[name]: value for name, value in item.metadata.items()}
    for item, kind in typed_fields(Settings)
}
_SENTENCES = {"caption": {"type": "array", "items": {"type": "string"}, "description": "sentence to score"}}


def _takes(fields: dict[str, Any], *, several: bool = False, needed: Sequence[str] = ()) -> dict[str, Any]:
    """Describe what a route takes: a form, or one image as the body and the other fields in the query."""
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    image = {"type": "array", "items": file} if several else file
    form = {"type": "object", "required": ["image", *needed], "properties": {"image": image, **fields}}
    body = {"multipart/form-data": {"schema": form | {"additionalProperties": False}}}
    if several:
        return {"requestBody": {"required": True, "content": body}}
    query = [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()]
    return {"requestBody": {"required": True, "content": body | {_BYTES: {"schema": file}}}, "parameters": query}


def add_functions(service: Service, metrics: Metrics) -> None:
    """Add what Gradio's client calls to the page that is being built; none of it is visible there."""

    def prepare(image: Any) -> tuple[Prepared, str]:
        path, name = gradio_fixes.uploaded_file(image), gradio_fixes.uploaded_name(image)
        return service.prepare(path, name=name), name

    def caption(
        image: gr.FileData,
        method: Literal["beam", "greedy", "sample"] = "beam",
        beam_size: int = 0,
        temperature: float = 0.8,
        top_p: float = 0.9,
        max_length: int = 0,
        seed: int = 0,
    ) -> tuple[str, dict[str, Any]]:
        """Write a caption for an image; and give its words with log-probabilities, and all captions that were found.

        The method is "beam" (the most probable caption), "greedy" (word by word) or "sample" (varied). For the
        beam size (1 to 10) and the longest caption (1 to 50 words), 0 stands for what suits the model.
        """
        with metrics.request("/caption", gradio_fixes.refusal):
            settings = chosen(method, beam_size, temperature, top_p, max_length, seed)
            details = asdict(captioned(service, *prepare(image), settings))
            return details["caption"], details

    def caption_batch(images: list[gr.FileData]) -> list[dict[str, Any]]:
        """Caption several images, 100 at most; in the same order, each with its caption or with an error."""
        with metrics.request("/caption_batch", gradio_fixes.refusal):
            names = list(map(gradio_fixes.uploaded_name, images if isinstance(images, list) else ()))
            found = recorded(service, names, lambda place: prepare(images[place])[0], Settings())
            return [{name: value for name, value in asdict(each).items() if value is not None} for each in found]

    def score(image: gr.FileData, text: str) -> tuple[float, dict[str, Any]]:
        """Tell how probable a sentence is for an image: log P(text | image); and perplexity and each word."""
        with metrics.request("/score", gradio_fixes.refusal):
            (found,) = scored(service, prepare(image)[0], [text])
            return found.log_prob, asdict(found)

    for function in (caption, caption_batch, score):
        gr.events.api(function, concurrency_limit=None)
