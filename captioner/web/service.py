"""The model as the page and its endpoints see it: encode a picture, caption it, score a sentence.

Importing this module imports neither torch nor gradio, and :class:`Service` loads its model in a thread of
its own, so that the page is there before the model is.
"""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from captioner.errors import CaptionerError, CheckpointError, ImageError, OptionError
from captioner.web.batching import Batcher

if TYPE_CHECKING:
    from torch import Tensor

    from captioner.caption import Caption
    from captioner.captioner import Captioner, Pixels
    from captioner.decoding.options import DecodingOptions
    from captioner.likelihood.scores import Score

MOST_WORDS = 100
"""Longer sentences are not scored: no caption comes near."""

_log = logging.getLogger(__name__)
_MOST_ENCODED = 64  # pictures; about 0.7 MB each
_MOST_READERS = 4  # pictures decoded at once; one of the largest takes 300 MB
_MOST_MODELS = 2  # in memory at once: the default and the one that was asked for last


@dataclass(frozen=True)
class Encoded:
    """A picture as the decoder needs it.

    Attributes:
        weights: name of the weights that encoded it.
        digest: fingerprint of the picture file.
        pixels: uint8 ``(size, size, 3)``, what the encoder saw; sampling is seeded by it.
        regions: float32 ``(regions, channels)`` on the CPU.
        seconds: how long it took to read and encode it.
    """

    weights: str
    digest: str
    pixels: Pixels
    regions: Tensor
    seconds: float


@dataclass(frozen=True)
class Status:
    """Whether the default weights can be used.

    Attributes:
        state: ``loading``, ``ready`` or ``failed``.
        message: for visitors, in one line.
        seconds: how long loading took, or has taken so far.
    """

    state: Literal["loading", "ready", "failed"]
    message: str
    seconds: float


@dataclass(frozen=True)
class About:
    """What is known of weights.

    Attributes:
        name: as in the list of weights.
        digest: first 16 hexadecimal digits of the file's SHA-256.
        card: model card in Markdown; empty if there is none.
        training: how the weights came about, as the checkpoint tells it.
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


class Service:
    """One or more checkpoints, loaded in the background, and the pictures encoded last.

    Every method may be called from any thread.

    Args:
        weights: a file or the name of shipped weights, as :func:`captioner.captioner.find_weights` takes it;
            the shipped default if absent. All other weights in the folder of the shipped ones can be asked
            for by name too.
        device: see :class:`captioner.captioner.Captioner`.
        precision: see :class:`captioner.captioner.Captioner`.
        max_pixels: larger pictures are refused before they are decoded; None for the usual limit.
        max_batch_size: pictures of different visitors that go through a network together.
        queue_size: pictures that may wait for a network; more are refused.
        timeout: seconds that one may wait.
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
        self._wanted, self._device, self._precision = weights, device, precision
        self._max_pixels = max_pixels
        self._files: dict[str, Path] = {}
        self._models: OrderedDict[str, Captioner] = OrderedDict()
        self._encoded: OrderedDict[tuple[str, str], Encoded] = OrderedDict()
        self._lock = threading.Lock()  # over the dictionaries above
        self._loading = threading.Lock()  # one checkpoint is read at a time
        self._reading = threading.BoundedSemaphore(_MOST_READERS)
        self._computing = threading.Lock()  # one batch goes through a network at a time
        self._encodings: Batcher[Captioner, Pixels, Tensor] = Batcher(
            self._encode, most=max_batch_size, queue_size=queue_size, timeout=timeout
        )
        self._decodings: Batcher[tuple[Captioner, DecodingOptions], Encoded, list[Caption]] = Batcher(
            self._decode, most=max_batch_size, queue_size=queue_size, timeout=timeout
        )
        self._done = threading.Event()
        self._error: CaptionerError | None = None
        self._started = time.monotonic()
        self._seconds = 0.0

    def start(self) -> None:
        """Begin to load the default weights in a thread of their own."""
        self._started = time.monotonic()
        threading.Thread(target=self._load_default, name="load-weights", daemon=True).start()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the default weights are loaded.

        Raises:
            CaptionerError: they cannot be loaded, or are not within ``timeout`` seconds.
        """
        if not self._done.wait(timeout):
            raise CaptionerError("the model is still loading; try again in a moment")
        if self._error is not None:
            raise self._error

    @property
    def status(self) -> Status:
        """Whether the default weights can be used yet."""
        if not self._done.is_set():
            return Status("loading", "Loading the model", time.monotonic() - self._started)
        if self._error is not None:
            return Status("failed", "The model cannot be loaded; the server's log says why", self._seconds)
        return Status("ready", "Model ready", self._seconds)

    @property
    def waiting(self) -> int:
        """Pictures that wait for a network."""
        return len(self._encodings) + len(self._decodings)

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
        """Names that can be asked for, the default first; empty before they are found."""
        return list(self._files)

    def options(self, weights: str | None = None) -> DecodingOptions:
        """Decoding options that suit the weights best.

        Raises:
            CaptionerError: as :meth:`encode`.
        """
        return self._model(weights).options

    def encode(
        self,
        source: Path | bytes,
        *,
        name: str = "the picture",
        weights: str | None = None,
        remember: bool = True,
    ) -> Encoded:
        """Read a picture and encode it; one that was encoded lately is remembered by its content.

        Args:
            source: a file, or its bytes.
            name: what messages call it; the server's path is no visitor's business.
            weights: by name; the default ones if absent.
            remember: whether it may push other pictures out of memory.

        Raises:
            ImageError: the picture is broken or too large, or no picture at all.
            CaptionerError: the weights cannot be loaded, or there are none of this name.
        """
        model = self._model(weights)
        data = _bytes_of(source, name)
        key = (weights or self.default, hashlib.blake2b(data, digest_size=16).hexdigest())
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
        """Write captions for an encoded picture.

        Returns:
            The best first when searching, in the order drawn when sampling; at least one.

        Raises:
            CaptionerError: as :meth:`encode`.
        """
        model = self._model(encoded.weights)
        return self._decodings((model, options or model.options), encoded)

    def score(self, encoded: Encoded, text: str, *, runners_up: int = 0) -> Score:
        """How probable the model finds a sentence for an encoded picture.

        Args:
            encoded: the picture.
            text: the sentence.
            runners_up: how many of the most probable words to name at each position.

        Raises:
            UnknownWordsError: the sentence has words that the model does not know.
            CaptionerError: it has no words or too many; or as :meth:`encode`.
        """
        model = self._model(encoded.weights)
        _check_length(text)
        with self._computing:
            regions = encoded.regions.to(model.device).unsqueeze(0)
            (score,) = model.score(regions, [text], runners_up=runners_up)
        if not score.words:
            raise OptionError("there are no words in the sentence; type some")
        return score

    def about(self, weights: str | None = None) -> About:
        """What is known of weights.

        Raises:
            CaptionerError: as :meth:`encode`.
        """
        model = self._model(weights)
        name = weights or self.default
        parts = (model.encoder, model.decoder)
        return About(
            name=name,
            digest=model.digest,
            card=_model_card(self._files[name]),
            training=model.training,
            megabytes=self._files[name].stat().st_size / 1e6,
            parameters=sum(parameter.numel() for part in parts for parameter in part.parameters()),
            words=len(model.vocabulary),
        )

    def _encode(self, model: Captioner, pictures: Sequence[Pixels]) -> Sequence[Tensor]:
        with self._computing:
            # Copies: a picture that is remembered must not keep all of its batch in memory.
            return [regions.clone() for regions in model.encode(pictures).cpu()]

    def _decode(
        self, key: tuple[Captioner, DecodingOptions], pictures: Sequence[Encoded]
    ) -> list[list[Caption]]:
        import torch

        model, options = key
        seeds = model.seeds([picture.pixels for picture in pictures], options)
        with self._computing:
            regions = torch.stack([picture.regions for picture in pictures]).to(model.device)
            return model.decode(regions, options, seeds=seeds)

    def _load_default(self) -> None:
        try:
            self._files = _find_files(self._wanted)
            self._load(self.default)
        except CaptionerError as error:
            self._error = error
            _log.error("captioner: error: %s", error)
        except Exception:
            self._error = CaptionerError("the model cannot be loaded")
            raise  # a bug: its traceback goes to the operator's log
        finally:
            self._seconds = time.monotonic() - self._started
            self._done.set()

    def _model(self, weights: str | None) -> Captioner:
        self._wait_for_visitor()
        name = weights or self.default
        if name not in self._files:
            raise OptionError(f"there are no weights {name!r}; there are {', '.join(self._files)}")
        with self._lock:
            if model := self._models.get(name):
                self._models.move_to_end(name)
                return model
        try:
            return self._load(name)
        except CaptionerError as error:  # names the file
            _log.error("captioner: error: %s", error)
            raise CaptionerError(f"the weights {name!r} cannot be loaded; choose others") from error

    def _wait_for_visitor(self) -> None:
        """Wait for the default weights; an error names no file of the server."""
        self._done.wait()
        if self._error is not None:
            raise CaptionerError(self.status.message) from self._error

    def _load(self, name: str) -> Captioner:
        from captioner.captioner import Captioner

        with self._loading:
            with self._lock:
                if model := self._models.get(name):  # another thread was faster
                    return model
            model = Captioner.load(self._files[name], device=self._device, precision=self._precision)
            with self._lock:
                self._models[name] = model
                idle = [other for other in self._models if other not in (name, self.default)]
                for other in idle[: len(self._models) - _MOST_MODELS]:
                    del self._models[other]
            return model


def _find_files(wanted: str | Path | None) -> dict[str, Path]:
    """Checkpoints by name: the wanted one first, then those beside the shipped default."""
    from captioner.weights import find_weights

    first = find_weights(wanted)
    if not first.is_file():
        raise CheckpointError(f"{first}: no such checkpoint")
    try:
        shipped = find_weights(None)
    except CheckpointError:  # none are installed; the wanted ones are enough
        return {first.stem: first}
    others = {file.stem: file for file in sorted(shipped.parent.glob("*.safetensors"))}
    return {first.stem: first} | {name: file for name, file in others.items() if name != first.stem}


def _model_card(file: Path) -> str:
    """The text that comes with weights: ``NAME.md`` beside them, or a ``README.md`` that names the file."""
    for card in (file.with_suffix(".md"), file.parent / "README.md"):
        if card.is_file():
            text = card.read_text(encoding="utf-8", errors="replace")
            if card.stem == file.stem or file.name in text:
                return text
    return ""


def _bytes_of(source: Path | bytes, name: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise ImageError(f"{name}: is no longer there; upload it again") from error


def _check_length(text: str) -> None:
    # Told from the spaces: taking a text of megabytes apart would take long.
    words = text.count(" ") + 1
    if words > MOST_WORDS or len(text) > 20 * MOST_WORDS:
        raise OptionError(f"the sentence is too long; give at most {MOST_WORDS} words")


def _read(model: Captioner, data: bytes, name: str, max_pixels: int | None) -> Pixels:
    from captioner.images import DEFAULT_MAX_PIXELS

    return model.preprocess(_Upload(data, name), max_pixels=max_pixels or DEFAULT_MAX_PIXELS)


class _Upload(io.BytesIO):
    """A file in memory that messages can name."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name
