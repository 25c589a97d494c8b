"""The model as the page and its endpoints see it: load it, encode an image, caption it, score a sentence.

Importing this module imports neither torch nor gradio, so that the page opens before the model is loaded.
"""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np

import captioner
from captioner.caption import Caption
from captioner.decoding.options import DecodingOptions
from captioner.errors import BusyError, CaptionerError, CheckpointError, ImageError, OptionError
from captioner.images import Pixels
from captioner.options import with_flags
from captioner.runtime.model import Floats
from captioner.weights import find_weights, read_header

MOST_WORDS = 100
"""Longer sentences are not scored: no caption comes near."""

_log = logging.getLogger(__name__)
_MOST_MODELS = 2  # in memory at once: the default and the one that was used last
_MOST_ENCODED = 64  # images; about 0.7 MB each
_MOST_READERS = 4  # images decoded at once; one of the largest takes 300 MB

Key = TypeVar("Key")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Status:
    """Whether the default weights can be used.

    Attributes:
        state: ``loading``, ``ready`` or ``failed``.
        message: for visitors, in one line.
        seconds: how long loading took; 0 while it goes on.
    """

    state: Literal["loading", "ready", "failed"]
    message: str
    seconds: float


@dataclass(frozen=True)
class About:
    """Facts about some weights.

    Attributes:
        name: as in the list of weights.
        digest: first 16 hexadecimal digits of the file's SHA-256.
        card: model card in Markdown; empty if there is none.
        training: how the weights were made, as the checkpoint says.
        megabytes: size of the file.
        parameters: number of weights.
        words: size of the vocabulary.
    """

    name: str
    digest: str
    card: str
    training: Mapping[str, object]
    megabytes: float
    parameters: int
    words: int


class Models:
    """One or more checkpoints.

    Every method may be called from any thread.

    Args:
        weights: a file or the name of shipped weights, as :func:`captioner.weights.find_weights` takes it;
            the shipped default if absent. All weights in the folder of the shipped ones can be loaded by
            name too.
        device: see :meth:`captioner.captioner.Captioner.load`.
        runtime: see there.
    """

    def __init__(self, weights: str | Path | None = None, *, device: str = "auto", runtime: str = "auto") -> None:
        self._wanted, self._device, self._runtime = weights, device, runtime
        self._files: dict[str, Path] = {}
        self._models: OrderedDict[str, captioner.Captioner] = OrderedDict()
        self._lock = threading.Lock()  # over the models
        self._loading = threading.Lock()  # one checkpoint is read at a time
        self._done = threading.Event()
        self._error: CaptionerError | None = None
        self._seconds = 0.0

    def start(self) -> None:
        """Begin to load the default weights in a thread of their own."""
        threading.Thread(target=self._load_default, name="load-weights", daemon=True).start()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the default weights are loaded.

        Raises:
            CaptionerError: they cannot be loaded, or are not within ``timeout`` seconds.
        """
        if not self._done.wait(timeout):
            raise CaptionerError("the model is still loading", "try again in a moment")
        if self._error is not None:
            raise self._error

    @property
    def status(self) -> Status:
        """Whether the default weights can be used yet."""
        if not self._done.is_set():
            return Status("loading", "Loading the model", self._seconds)
        if self._error is not None:
            return Status("failed", "The model cannot be loaded; the server's log says why", self._seconds)
        return Status("ready", "Model ready", self._seconds)

    @property
    def digest(self) -> str | None:
        """First 16 hexadecimal digits of the default weights' SHA-256; None before they are loaded."""
        with self._lock:
            model = self._models.get(self.default)
        return None if model is None else model.digest

    @property
    def default(self) -> str:
        """Name of the default weights; empty before they are found."""
        return next(iter(self._files), "")

    @property
    def weights(self) -> list[str]:
        """Names of all weights, the default first; empty before they are found."""
        return list(self._files)

    def load(self, weights: str | None = None) -> captioner.Captioner:
        """Give the checkpoint of a name, or the default one; load it unless it is in memory.

        Raises:
            CaptionerError: it cannot be loaded, or there is none of this name.
        """
        self._done.wait()
        if self._error is not None:  # it names a file of the server, which is not for visitors
            raise CaptionerError(self.status.message) from self._error
        name = weights or self.default
        if name not in self._files:
            raise OptionError(f"there are no weights {name!r}", f"there are {', '.join(self._files)}")
        with self._lock:
            if model := self._models.get(name):
                self._models.move_to_end(name)
                return model
        try:
            return self._load_file(name)
        except CaptionerError as error:  # it names the file
            _log.error("captioner: error: %s", with_flags(str(error)))
            raise CaptionerError(f"the weights {name!r} cannot be loaded", "choose others") from error

    def about(self, weights: str | None = None) -> About:
        """Give facts about some weights.

        Raises:
            CaptionerError: as :meth:`load`.
        """
        model = self.load(weights)
        name = weights or self.default
        return About(
            name=name,
            digest=model.digest,
            card=_model_card(self._files[name]),
            training=model.training,
            megabytes=self._files[name].stat().st_size / 1e6,
            parameters=read_header(self._files[name]).parameters,
            words=len(model.vocabulary),
        )

    def _load_default(self) -> None:
        start = time.monotonic()
        try:
            self._files = _find_files(self._wanted)
            self._load_file(self.default)
        except CaptionerError as error:
            self._error = error
            _log.error("captioner: error: %s", with_flags(str(error)))
        except Exception:
            self._error = CaptionerError("the model cannot be loaded")
            raise  # a bug: its traceback goes to the operator's log
        finally:
            self._seconds = time.monotonic() - start
            self._done.set()

    def _load_file(self, name: str) -> captioner.Captioner:
        with self._loading:
            with self._lock:
                if model := self._models.get(name):  # another thread was faster
                    return model
            model = captioner.Captioner.load(self._files[name], device=self._device, runtime=self._runtime)
            if model.notice:
                _log.warning("captioner: %s", with_flags(model.notice))
            with self._lock:
                self._models[name] = model
                idle = [other for other in self._models if other not in (name, self.default)]
                for other in idle[: len(self._models) - _MOST_MODELS]:
                    del self._models[other]
            return model


def _find_files(wanted: str | Path | None) -> dict[str, Path]:
    """Checkpoints by name: the wanted one first, then those beside the shipped default."""
    first = find_weights(wanted)
    if not first.is_file():
        raise CheckpointError(f"{first}: no such checkpoint")
    try:
        shipped = find_weights(None)
    except CheckpointError:  # none are installed; the wanted ones are enough
        return {first.stem: first}
    others = {file.stem: file for file in sorted(shipped.parent.glob("*.safetensors"))}
    return {first.stem: first} | others | {first.stem: first}


def _model_card(file: Path) -> str:
    """The text that comes with weights: ``NAME.md`` beside them, or a ``README.md`` that names the file."""
    for card in (file.with_suffix(".md"), file.parent / "README.md"):
        if card.is_file():
            text = card.read_text(encoding="utf-8", errors="replace")
            if card.stem == file.stem or file.name in text:
                return text
    return ""


@dataclass
class _Call(Generic[Key, Item, Result]):
    key: Key
    item: Item
    future: futures.Future[Result] = field(default_factory=futures.Future)


class Batcher(Generic[Key, Item, Result]):
    """One worker thread that computes batches for many threads.

    A call that finds the worker idle is computed at once, and those that come while it works are its next
    batch. Calls that gave up waiting are not computed.

    Args:
        compute: from a key and some items to as many results; called by the worker alone.
        most: items in a batch.
        queue_size: calls that may wait; one more is refused.
        timeout: seconds after which a call gives up.
    """

    def __init__(
        self, compute: Callable[[Key, Sequence[Item]], Sequence[Result]], *, most: int, queue_size: int, timeout: float
    ) -> None:
        self._compute, self._most, self._queue_size, self._timeout = compute, most, queue_size, timeout
        self._waiting: deque[_Call[Key, Item, Result]] = deque()
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None

    def __len__(self) -> int:
        """Count the calls that wait."""
        return len(self._waiting)

    def __call__(self, key: Key, item: Item) -> Result:
        """Have an item computed, together with others of the same key.

        Raises:
            BusyError: too many wait already, or it took too long.
            Exception: whatever ``compute`` raises for this item.
        """
        call: _Call[Key, Item, Result] = _Call(key, item)
        with self._changed:
            if len(self._waiting) >= self._queue_size:
                raise BusyError("the server is busy", "try again in a moment")
            self._waiting.append(call)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="batcher", daemon=True)
                self._worker.start()
            self._changed.notify()
        try:
            return call.future.result(self._timeout)
        except futures.TimeoutError as error:
            # Since Python 3.11 this is the built-in TimeoutError, which compute could raise as well.
            if call.future.done() and not call.future.cancelled():
                raise
            call.future.cancel()
            raise BusyError("this took too long, and the server is busy", "try again in a moment") from error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                batch = self._take()
            started = [call for call in batch if call.future.set_running_or_notify_cancel()]
            if started:
                self._run(started)

    def _take(self) -> list[_Call[Key, Item, Result]]:
        """The oldest call and those behind it that have the same key."""
        key = self._waiting[0].key
        batch: list[_Call[Key, Item, Result]] = []
        others: deque[_Call[Key, Item, Result]] = deque()
        while self._waiting:
            call = self._waiting.popleft()
            fits = call.key == key and len(batch) < self._most
            (batch if fits else others).append(call)
        self._waiting = others
        return batch

    def _run(self, batch: list[_Call[Key, Item, Result]]) -> None:
        try:
            results = self._compute(batch[0].key, [call.item for call in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for call in batch:  # one bad item must not fail the others
                self._run([call])
            return
        for call, result in zip(batch, results, strict=True):
            call.future.set_result(result)


@dataclass(frozen=True)
class Encoded:
    """An image as the decoder needs it.

    Attributes:
        weights: name of the weights that encoded it.
        digest: fingerprint of the image file.
        pixels: uint8 ``(size, size, 3)``, what the encoder saw; sampling is seeded by it.
        regions: float32 ``(regions, channels)`` on the CPU.
        seconds: how long it took to read and encode it.
    """

    weights: str
    digest: str
    pixels: Pixels
    regions: Floats
    seconds: float


class Service:
    """Checkpoints and the images encoded last.

    Every method may be called from any thread.

    Args:
        weights: see :class:`Models`.
        device: see :class:`Models`.
        runtime: see there.
        max_batch_size: images of different visitors that go through a network together.
        queue_size: images that may wait for a network; more are refused.
        timeout: seconds that one may wait.

    Attributes:
        models: the checkpoints.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        device: str = "auto",
        runtime: str = "auto",
        max_batch_size: int = 8,
        queue_size: int = 64,
        timeout: float = 60,
    ) -> None:
        self.models = Models(weights, device=device, runtime=runtime)
        self._encoded: OrderedDict[tuple[str, str], Encoded] = OrderedDict()
        self._lock = threading.Lock()  # over the dictionary above
        self._reading = threading.BoundedSemaphore(_MOST_READERS)
        self._computing = threading.Lock()  # one batch goes through a network at a time
        bounds: dict[str, Any] = {"most": max_batch_size, "queue_size": queue_size, "timeout": timeout}
        self._encodings: Batcher[captioner.Captioner, Pixels, Floats] = Batcher(self._encode, **bounds)
        self._decodings: Batcher[tuple[captioner.Captioner, DecodingOptions], Encoded, list[Caption]] = Batcher(
            self._decode, **bounds
        )

    @property
    def waiting(self) -> int:
        """Images that wait for a network."""
        return len(self._encodings) + len(self._decodings)

    def options(self, weights: str | None = None) -> DecodingOptions:
        """Give the decoding options that suit the weights best.

        Raises:
            CaptionerError: as :meth:`encode`.
        """
        return self.models.load(weights).options

    def encode(
        self, source: Path | bytes, *, name: str = "the image", weights: str | None = None, remember: bool = True
    ) -> Encoded:
        """Read an image and encode it, unless its content was encoded lately and is still in memory.

        Args:
            source: a file, or its bytes.
            name: what messages call it, since visitors must not see the server's path.
            weights: by name; the default ones if absent.
            remember: whether it may push other images out of memory.

        Raises:
            ImageError: the file is a broken or too large image, or not an image.
            CaptionerError: the weights cannot be loaded, or there are none of this name.
        """
        model = self.models.load(weights)
        try:
            data = source if isinstance(source, bytes) else source.read_bytes()
        except OSError as error:
            raise ImageError(f"{name}: is no longer there", "upload it again") from error
        key = (weights or self.models.default, hashlib.blake2b(data, digest_size=16).hexdigest())
        with self._lock:
            if known := self._encoded.get(key):
                self._encoded.move_to_end(key)
                return known
        start = time.perf_counter()
        with self._reading:
            pixels = model.preprocess(_Upload(data, name))
        regions = self._encodings(model, pixels)
        encoded = Encoded(*key, pixels, regions, seconds=time.perf_counter() - start)
        if not remember:
            return encoded
        with self._lock:
            self._encoded[key] = encoded
            while len(self._encoded) > _MOST_ENCODED:
                self._encoded.popitem(last=False)
        return encoded

    def caption(self, encoded: Encoded, options: DecodingOptions | None = None) -> list[Caption]:
        """Write captions for an encoded image.

        Returns:
            The best first when searching, in the order drawn when sampling; at least one.

        Raises:
            CaptionerError: as :meth:`encode`.
        """
        model = self.models.load(encoded.weights)
        return self._decodings((model, options or model.options), encoded)

    def score(self, encoded: Encoded, text: str, *, runners_up: int = 0, attention: bool = False) -> captioner.Score:
        """Score a sentence for an encoded image.

        Args:
            encoded: the image.
            text: the sentence.
            runners_up: how many of the most probable words to name at each position.
            attention: whether to record where a model with attention looks at each word.

        Raises:
            UnknownWordsError: the sentence has words that the model does not know.
            CaptionerError: it has no words or too many; or as :meth:`encode`.
        """
        model = self.models.load(encoded.weights)
        # Spaces are counted, since splitting a text of megabytes would take long.
        if text.count(" ") + 1 > MOST_WORDS or len(text) > 20 * MOST_WORDS:
            raise OptionError("the sentence is too long", f"give at most {MOST_WORDS} words")
        with self._computing:
            (score,) = model.score(encoded.regions[None], [text], runners_up=runners_up, attention=attention)
        if not score.words:
            raise OptionError("there are no words in the sentence", "type some")
        return score

    def _encode(self, model: captioner.Captioner, images: Sequence[Pixels]) -> Sequence[Floats]:
        with self._computing:
            # Copies: an image that is remembered must not keep all of its batch in memory.
            return [regions.copy() for regions in model.encode(images)]

    def _decode(
        self, key: tuple[captioner.Captioner, DecodingOptions], images: Sequence[Encoded]
    ) -> list[list[Caption]]:
        model, options = key
        seeds = model.seeds([image.pixels for image in images], options)
        with self._computing:
            regions = np.stack([image.regions for image in images])
            return model.decode(regions, options, seeds=seeds, attention=False)


class _Upload(io.BytesIO):
    """A file in memory that messages can name."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name
