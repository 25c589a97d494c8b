"""The model as the page and its endpoints see it: load it, read an image, caption it, score a sentence.

Importing this module imports neither torch nor gradio, so that the page opens before the model is loaded.
"""

import io
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, NoReturn, TypeAlias

import numpy as np

import captioner
from captioner.batcher import Batcher, busy
from captioner.caption import Caption
from captioner.decoding.options import DecodingOptions
from captioner.errors import BusyError, CaptionerError, CheckpointError, ImageError, OptionError
from captioner.images import Pixels
from captioner.images.reading import digest_of
from captioner.options import with_flags
from captioner.runtime.model import Floats
from captioner.vocabulary import known_words
from captioner.weights import find_weights, read_header

MOST_WORDS = 100
"""Longer sentences are not scored: no caption comes near."""

_log = logging.getLogger(__name__)
_MOST_MODELS = 2  # in memory at once: the default and the one that was used last
_MOST_PREPARED = 32  # images; about 0.6 MB each
_MOST_READERS = 2  # images that are decoded at once, while others wait as files
_MOST_DECODED_BYTES = 300e6  # of one image while it is decoded
_REST = 10  # seconds without work after which memory is given back

Source: TypeAlias = Path | bytes | BinaryIO


@dataclass(frozen=True)
class Status:
    """Whether the default weights can be used, with a line for visitors; and how long loading took."""

    state: Literal["loading", "ready", "failed"]
    message: str
    seconds: float


@dataclass(frozen=True)
class About:
    """Facts about some weights: what their checkpoint says, and their model card in Markdown, if there is one."""

    name: str
    digest: str
    card: str
    training: Mapping[str, object]
    megabytes: float
    parameters: int
    words: int


class Models:
    """One or more checkpoints; every method may be called from any thread.

    Args:
        weights: a file or the name of shipped weights, as :func:`captioner.weights.find_weights` takes it. All
            weights in the folder of the shipped ones can be loaded by name too.
        device: see :meth:`captioner.captioner.Captioner.load`.
        runtime: see there.
    """

    def __init__(self, weights: str | Path | None = None, *, device: str = "auto", runtime: str = "auto") -> None:
        self._wanted, self._device, self._runtime = weights, device, runtime
        self._files: dict[str, Path] = {}
        self._models: OrderedDict[str, captioner.Captioner] = OrderedDict()
        self._lock, self._loading = threading.Lock(), threading.Lock()  # over the models; over reading a checkpoint
        self._done = threading.Event()
        self._error: CaptionerError | None = None
        self._seconds = 0.0

    def start(self) -> None:
        """Begin to load the default weights in a thread of their own."""
        threading.Thread(target=self._load_default, name="load-weights", daemon=True).start()

    @property
    def status(self) -> Status:
        """Whether the default weights can be used yet."""
        if not self._done.is_set():
            return Status("loading", "Loading the model", self._seconds)
        if self._error is not None:
            return Status("failed", "The model cannot be loaded; the server's log says why", self._seconds)
        return Status("ready", "Model ready", self._seconds)

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
        """Give facts about some weights."""
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


@dataclass(eq=False)
class Prepared:
    """An image as the model takes it; ``digest`` is that of its file.

    The encoder sees ``pixels``, uint8 ``(size, size, 3)``, which also seed sampling, and makes of them ``regions``,
    float32 ``(regions, channels)`` on the CPU, when they are first needed.
    """

    weights: str
    digest: str
    pixels: Pixels
    regions: Floats | None = None


class _Replay(NamedTuple):
    """How to score sentences."""

    runners_up: int
    attention: bool


class _Task(NamedTuple):
    """What is wanted of an image: captions, or scores of some sentences."""

    image: Prepared
    how: DecodingOptions | _Replay
    texts: Sequence[str] = ()


class Service:
    """Checkpoints (:class:`Models`) and the images prepared last; every method may be called from any thread.

    Args:
        weights: see :class:`Models`, and there for ``device`` and ``runtime``.
        max_batch_size: images of different visitors that go through a network together.
        queue_size: images that may wait to be read or for a network; more are refused.
        timeout: seconds that one may wait for a network.
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
        self._prepared: OrderedDict[tuple[str, str], Prepared] = OrderedDict()
        self._lock = threading.Lock()  # over the dictionary above and the number below
        self._arrived = 0  # images that wait to be read, or are being read
        self._queue_size = queue_size
        self._readers = threading.BoundedSemaphore(_MOST_READERS)
        self._used = threading.Event()  # since memory was given back
        self._tasks: Batcher[captioner.Captioner, _Task, Any] = Batcher(
            _compute,
            most=max_batch_size,
            queue_size=queue_size,
            timeout=timeout,
            workers=lambda model: model.model.threads,
            begin=lambda model: model.model.begin_thread(),
            prepare=_encode,
        )

    @property
    def waiting(self) -> int:
        """Images that wait to be read or for a network."""
        return self._arrived + len(self._tasks)

    def check_room(self) -> None:
        """Accept one more image; :class:`BusyError` where as many wait as may, or there is no model."""
        if self.models.status.state == "failed":
            raise BusyError(self.models.status.message)
        if self.waiting >= self._queue_size:
            raise busy()

    def options(self, weights: str | None = None) -> DecodingOptions:
        """Give the decoding options that suit the weights best."""
        return self.models.load(weights).options

    def prepare(
        self, source: Source, *, name: str = "the image", weights: str | None = None, remember: bool = True
    ) -> Prepared:
        """Read an image and scale it, unless its content was prepared lately and is still in memory.

        Args:
            source: a file, or its bytes.
            name: what messages call it, since visitors must not see the server's path.
            weights: by name; the default ones if absent.
            remember: whether it may push other images out of memory.

        Raises:
            CaptionerError: it is no image that can be read, the weights cannot be loaded, or too many images wait.
        """
        with self._lock:
            self.check_room()
            self._arrived += 1
        try:
            model = self.models.load(weights)
            with self._readers:
                data = _read(source, name)
                key = (weights or self.models.default, digest_of(data).hex())
                with self._lock:
                    if known := self._prepared.get(key):
                        self._prepared.move_to_end(key)
                        return known
                prepared = Prepared(*key, model.preprocess(_Upload(data, name), max_bytes=_MOST_DECODED_BYTES))
        finally:
            self._used.set()
            with self._lock:
                self._arrived -= 1
        if remember:
            with self._lock:
                self._prepared[key] = prepared
                while len(self._prepared) > _MOST_PREPARED:
                    self._prepared.popitem(last=False)
        return prepared

    def caption(self, image: Prepared, options: DecodingOptions | None = None) -> list[Caption]:
        """Write captions for an image: the best first when searching, in the order drawn when sampling."""
        model = self.models.load(image.weights)
        return self._do(model, _Task(image, options or model.options))

    def score(self, image: Prepared, text: str, *, runners_up: int = 0, attention: bool = False) -> captioner.Score:
        """Score a sentence for an image; as :meth:`scores`."""
        (score,) = self.scores(image, [text], runners_up=runners_up, attention=attention)
        return score

    def scores(
        self, image: Prepared, texts: Sequence[str], *, runners_up: int = 0, attention: bool = False
    ) -> list[captioner.Score]:
        """Score sentences for an image, as :meth:`captioner.captioner.Captioner.score` does.

        Raises:
            UnknownWordsError: a sentence has words that the model does not know.
            CaptionerError: a sentence has no words or too many; or as :meth:`prepare`.
        """
        model = self.models.load(image.weights)
        for text in texts:
            # Spaces are counted, since splitting a text of megabytes would take long.
            if text.count(" ") + 1 > MOST_WORDS or len(text) > 20 * MOST_WORDS:
                raise OptionError("the sentence is too long", f"give at most {MOST_WORDS} words")
            if not known_words(text, model.vocabulary):
                raise OptionError("there are no words in the sentence", "type some")
        return self._do(model, _Task(image, _Replay(runners_up, attention), texts))

    def _do(self, model: captioner.Captioner, task: _Task) -> list[Any]:
        try:
            return list(self._tasks(model, task))
        finally:
            self._used.set()

    def keep_small(self) -> NoReturn:
        """Give memory back whenever there is nothing to do for a while; for a thread of its own."""
        while True:
            self._used.wait()
            self._used.clear()
            time.sleep(_REST)
            if not self._used.is_set() and self.models.status.state == "ready":
                self.models.load().model.rest()


def _encode(model: captioner.Captioner, *tasks: _Task, together: int = 1) -> None:
    """Encode the images that are new, unless that is better done for more of them at once."""
    if together < model.model.seen_together:
        return
    new = [*dict.fromkeys(task.image for task in tasks if task.image.regions is None)]
    for start in range(0, len(new), together):
        images = new[start : start + together]
        for image, regions in zip(images, model.encode([image.pixels for image in images]), strict=True):
            image.regions = regions.copy()  # an image that is remembered must not keep all of its batch in memory


def _compute(model: captioner.Captioner, tasks: Sequence[_Task]) -> list[Any]:
    """Write or score what is wanted in the same way together."""
    _encode(model, *tasks, together=model.model.seen_together)
    found: dict[int, Any] = {}
    for how in dict.fromkeys(task.how for task in tasks):
        places = [place for place, task in enumerate(tasks) if task.how == how]
        found.update(zip(places, _same(model, how, [tasks[place] for place in places]), strict=True))
    return [found[place] for place in range(len(tasks))]


def _same(model: captioner.Captioner, how: DecodingOptions | _Replay, tasks: Sequence[_Task]) -> list[Any]:
    regions = np.stack([task.image.regions for task in tasks])  # type: ignore[misc]  # they are encoded
    if isinstance(how, DecodingOptions):
        seeds = model.seeds([task.image.pixels for task in tasks], how)
        return list(model.decode(regions, how, seeds=seeds, attention=False))
    counts = [len(task.texts) for task in tasks]
    texts = [text for task in tasks for text in task.texts]
    scores = iter(model.score(np.repeat(regions, counts, axis=0), texts, **how._asdict()))
    return [[next(scores) for _ in range(count)] for count in counts]


def _read(source: Source, name: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes() if isinstance(source, Path) else source.read()
    except OSError as error:
        raise ImageError(f"{name}: is no longer there", "upload it again") from error


class _Upload(io.BytesIO):
    """A file in memory that messages can name."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name
