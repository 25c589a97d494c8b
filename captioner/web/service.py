"""The model as the page and its endpoints see it: encode an image, caption it, score a sentence.

Importing this module imports neither torch nor gradio.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from captioner.errors import BusyError, ImageError, OptionError
from captioner.web.models import Models

if TYPE_CHECKING:
    from torch import Tensor

    from captioner.caption import Caption
    from captioner.captioner import Captioner
    from captioner.decoding.options import DecodingOptions
    from captioner.images import Pixels
    from captioner.scoring import Score


Key = TypeVar("Key")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class _Call(Generic[Key, Item, Result]):
    key: Key
    item: Item
    future: Future[Result] = field(default_factory=Future)


class Batcher(Generic[Key, Item, Result]):
    """One worker thread that computes what many threads ask for.

    Nothing waits for company: a call that finds the worker idle is computed at once, and those that come
    while it works are its next batch. Calls that gave up waiting are not computed.

    Args:
        compute: from a key and some items to as many results; called by the worker alone.
        most: items in a batch.
        queue_size: calls that may wait; one more is refused.
        timeout: seconds after which a call gives up.
    """

    def __init__(
        self,
        compute: Callable[[Key, Sequence[Item]], Sequence[Result]],
        *,
        most: int,
        queue_size: int,
        timeout: float,
    ) -> None:
        self._compute, self._most, self._queue_size, self._timeout = compute, most, queue_size, timeout
        self._waiting: deque[_Call[Key, Item, Result]] = deque()
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None

    def __len__(self) -> int:
        """Calls that wait."""
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
        except FutureTimeoutError as error:
            # Since Python 3.11 this is the built-in TimeoutError, which compute could raise as well.
            if call.future.done() and not call.future.cancelled():
                raise
            call.future.cancel()
            raise BusyError("this took too long, and the server is busy", "try again in a moment") from error

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
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


MOST_WORDS = 100
"""Longer sentences are not scored: no caption comes near."""

_MOST_ENCODED = 64  # images; about 0.7 MB each
_MOST_READERS = 4  # images decoded at once; one of the largest takes 300 MB


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
    regions: Tensor
    seconds: float


class Service:
    """Checkpoints and the images encoded last.

    Every method may be called from any thread.

    Args:
        weights: see :class:`captioner.web.models.Models`.
        device: see :class:`captioner.captioner.Captioner`.
        precision: see :class:`captioner.captioner.Captioner`.
        max_pixels: larger images are refused before they are decoded; None for the usual limit.
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
        precision: str = "auto",
        max_pixels: int | None = None,
        max_batch_size: int = 8,
        queue_size: int = 64,
        timeout: float = 60,
    ) -> None:
        self.models = Models(weights, device=device, precision=precision)
        self._max_pixels = max_pixels
        self._encoded: OrderedDict[tuple[str, str], Encoded] = OrderedDict()
        self._lock = threading.Lock()  # over the dictionary above
        self._reading = threading.BoundedSemaphore(_MOST_READERS)
        self._computing = threading.Lock()  # one batch goes through a network at a time
        self._encodings: Batcher[Captioner, Pixels, Tensor] = Batcher(
            self._encode, most=max_batch_size, queue_size=queue_size, timeout=timeout
        )
        self._decodings: Batcher[tuple[Captioner, DecodingOptions], Encoded, list[Caption]] = Batcher(
            self._decode, most=max_batch_size, queue_size=queue_size, timeout=timeout
        )

    @property
    def waiting(self) -> int:
        """Images that wait for a network."""
        return len(self._encodings) + len(self._decodings)

    def options(self, weights: str | None = None) -> DecodingOptions:
        """Decoding options that suit the weights best.

        Raises:
            CaptionerError: as :meth:`encode`.
        """
        return self.models.load(weights).options

    def encode(
        self,
        source: Path | bytes,
        *,
        name: str = "the image",
        weights: str | None = None,
        remember: bool = True,
    ) -> Encoded:
        """Read an image and encode it; one that was encoded lately is remembered by its content.

        Args:
            source: a file, or its bytes.
            name: what messages call it; the server's path is no visitor's business.
            weights: by name; the default ones if absent.
            remember: whether it may push other images out of memory.

        Raises:
            ImageError: the image is broken or too large, or no image at all.
            CaptionerError: the weights cannot be loaded, or there are none of this name.
        """
        model = self.models.load(weights)
        data = _bytes_of(source, name)
        key = (weights or self.models.default, hashlib.blake2b(data, digest_size=16).hexdigest())
        with self._lock:
            if known := self._encoded.get(key):
                self._encoded.move_to_end(key)
                return known
        start = time.perf_counter()
        with self._reading:
            pixels = _read(model, data, name, self._max_pixels)
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

    def score(self, encoded: Encoded, text: str, *, runners_up: int = 0, attention: bool = False) -> Score:
        """How probable the model finds a sentence for an encoded image.

        Args:
            encoded: the image.
            text: the sentence.
            runners_up: how many of the most probable words to name at each position.
            attention: whether to find where a model with attention looks at each word.

        Raises:
            UnknownWordsError: the sentence has words that the model does not know.
            CaptionerError: it has no words or too many; or as :meth:`encode`.
        """
        model = self.models.load(encoded.weights)
        _check_length(text)
        with self._computing:
            regions = encoded.regions.to(model.device).unsqueeze(0)
            (score,) = model.score(regions, [text], runners_up=runners_up, attention=attention)
        if not score.words:
            raise OptionError("there are no words in the sentence", "type some")
        return score

    def _encode(self, model: Captioner, images: Sequence[Pixels]) -> Sequence[Tensor]:
        with self._computing:
            # Copies: an image that is remembered must not keep all of its batch in memory.
            return [regions.clone() for regions in model.encode(images).cpu()]

    def _decode(self, key: tuple[Captioner, DecodingOptions], images: Sequence[Encoded]) -> list[list[Caption]]:
        import torch

        model, options = key
        seeds = model.seeds([image.pixels for image in images], options)
        with self._computing:
            regions = torch.stack([image.regions for image in images]).to(model.device)
            return model.decode(regions, options, seeds=seeds, attention=False)


def _bytes_of(source: Path | bytes, name: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise ImageError(f"{name}: is no longer there", "upload it again") from error


def _check_length(text: str) -> None:
    # Told from the spaces: taking a text of megabytes apart would take long.
    words = text.count(" ") + 1
    if words > MOST_WORDS or len(text) > 20 * MOST_WORDS:
        raise OptionError("the sentence is too long", f"give at most {MOST_WORDS} words")


def _read(model: Captioner, data: bytes, name: str, max_pixels: int | None) -> Pixels:
    from captioner.images import DEFAULT_MAX_PIXELS

    return model.preprocess(_Upload(data, name), max_pixels=max_pixels or DEFAULT_MAX_PIXELS)


class _Upload(io.BytesIO):
    """A file in memory that messages can name."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name
