"""The checkpoints that the page can use: one of them is loaded in the background, others when asked for.

Importing this module does not import torch, so that the page is there before the model is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from captioner.errors import CaptionerError, CheckpointError, OptionError
from captioner.options import with_flags

if TYPE_CHECKING:
    from captioner.captioner import Captioner

_log = logging.getLogger(__name__)
_MOST_MODELS = 2  # in memory at once: the default and the one that was asked for last


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


class Models:
    """One or more checkpoints.

    Every method may be called from any thread.

    Args:
        weights: a file or the name of shipped weights, as :func:`captioner.weights.find_weights` takes it;
            the shipped default if absent. All other weights in the folder of the shipped ones can be asked
            for by name too.
        device: see :class:`captioner.captioner.Captioner`.
        precision: see :class:`captioner.captioner.Captioner`.
    """

    def __init__(self, weights: str | Path | None = None, *, device: str = "auto", precision: str = "auto") -> None:
        self._wanted, self._device, self._precision = weights, device, precision
        self._files: dict[str, Path] = {}
        self._models: OrderedDict[str, Captioner] = OrderedDict()
        self._lock = threading.Lock()  # over the models
        self._loading = threading.Lock()  # one checkpoint is read at a time
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
            raise CaptionerError("the model is still loading", "try again in a moment")
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

    def load(self, weights: str | None = None) -> Captioner:
        """The checkpoint of a name, or the default one; it may have been loaded already.

        Raises:
            CaptionerError: it cannot be loaded, or there is none of this name.
        """
        self._wait_for_visitor()
        name = weights or self.default
        if name not in self._files:
            raise OptionError(f"there are no weights {name!r}", f"there are {', '.join(self._files)}")
        with self._lock:
            if model := self._models.get(name):
                self._models.move_to_end(name)
                return model
        try:
            return self._load_file(name)
        except CaptionerError as error:  # names the file
            _log.error("captioner: error: %s", with_flags(str(error)))
            raise CaptionerError(f"the weights {name!r} cannot be loaded", "choose others") from error

    def about(self, weights: str | None = None) -> About:
        """What is known of weights.

        Raises:
            CaptionerError: as :meth:`load`.
        """
        model = self.load(weights)
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

    def _load_default(self) -> None:
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
            self._seconds = time.monotonic() - self._started
            self._done.set()

    def _wait_for_visitor(self) -> None:
        """Wait for the default weights; an error names no file of the server."""
        self._done.wait()
        if self._error is not None:
            raise CaptionerError(self.status.message) from self._error

    def _load_file(self, name: str) -> Captioner:
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
