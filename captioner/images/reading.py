"""Read images ahead, in processes that may crash. Imports no torch, so that they start quickly."""

import hashlib
import io
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError, ImageError
from captioner.images import Pixels, Preprocessing, Preprocessings, display_name, draw, read_file
from captioner.images.tars import Item, Member, TarReader

_THUMBNAIL_SIDE = 256
_ATTEMPTS = 2
# The path of the modules is set before anything is imported: Python would look for them in the current
# folder first, and that may be a folder of downloaded images.
_START = "import sys; sys.path[:] = sys.argv[1:]; from captioner.images.reading import serve; serve()"


@dataclass(frozen=True)
class Identity:
    """By what an image file is known again.

    Attributes:
        size: bytes.
        modified: time of the last change, in nanoseconds since 1970.
        digest: 16 bytes of BLAKE2b over the file.
        pixels: the same over what the encoder sees of it, which no metadata change; empty where that is not known.
    """

    size: int
    modified: int
    digest: bytes
    pixels: bytes = b""


@dataclass(frozen=True)
class Loaded:
    """An image ready for the encoder, or why it is not.

    Attributes:
        identity: of the file; None if it could not be read.
        pixels: uint8 ``(size, size, 3)``; None if it failed.
        error: why it failed, in one line.
        thumbnail: a small JPEG of it, if asked for.
    """

    identity: Identity | None = None
    pixels: Pixels | None = None
    error: str | None = None
    thumbnail: bytes | None = None


@dataclass(frozen=True)
class ImageReader:
    """Opens and scales images.

    Attributes:
        preprocessing: what the encoder expects.
        max_pixels: larger images are refused before they are decoded.
        check: raises :class:`ImageError` for a file, by its bytes and its name, that is not to be captioned;
            a function of a module, because it is sent to other processes.
        thumbnails: make one of each image.
    """

    preprocessing: Preprocessing | Preprocessings
    max_pixels: int
    check: Callable[[bytes, str], None] | None = None
    thumbnails: bool = False
    _tars: TarReader = field(default_factory=TarReader, init=False, repr=False, compare=False)

    def __call__(self, item: Item) -> Loaded:
        """Read one image; what is wrong with its file becomes an error in the answer."""
        identity = None
        try:
            # Before reading: a file that changes meanwhile will look changed later, not the other way round.
            modified = _modified(item)
            data = read_item(item, self._tars, max_pixels=self.max_pixels)
            identity = Identity(len(data), modified, digest_of(data))
            name = str(item)
            pixels = self.preprocessing.load(_Named(data, name), max_pixels=self.max_pixels)
            identity = replace(identity, pixels=digest_of(pixels.tobytes()))
            if self.check is not None:
                self.check(data, display_name(name))
            thumbnail = None
            if self.thumbnails:
                thumbnail = draw.make_thumbnail(_Named(data, name), _THUMBNAIL_SIDE, max_pixels=self.max_pixels)
        except ImageError as error:
            return Loaded(identity, error=str(error))
        return Loaded(identity, pixels, thumbnail=thumbnail)


class _Named(io.BytesIO):
    """Bytes that are called like the file they come from, in messages."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def read_item(item: Item, tars: TarReader, *, max_pixels: int) -> bytes:
    """Bytes of an image, wherever it lies.

    Raises:
        ImageError: as :func:`captioner.images.read_file` and :meth:`TarReader.read`.
    """
    if isinstance(item, Member):
        return tars.read(item, max_pixels=max_pixels)
    return read_file(item, max_pixels=max_pixels)


def digest_of(data: bytes, length: int = 16) -> bytes:
    """What files of equal content share: so many bytes of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=length).digest()


def _stamp(path: Path) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116 - asked of a million files
    return status.st_size, status.st_mtime_ns


def _modified(item: Item) -> int:
    if isinstance(item, Member):
        return item.modified
    try:
        return _stamp(item)[1]
    except (OSError, ValueError):  # reading it will say what is wrong
        return 0


def has_changed(
    item: Item, seen: tuple[int | None, int | None, bytes | None], tars: TarReader, *, max_pixels: int
) -> bool:
    """Whether a file is another one than that of some size, time and digest.

    It is read only where size and time leave that open.
    """
    try:
        now = (item.size, item.modified) if isinstance(item, Member) else _stamp(item)
    except (OSError, ValueError):
        return False  # it has gone: what was seen of it stands
    if now == seen[:2]:
        return False
    try:
        return digest_of(read_item(item, tars, max_pixels=max_pixels)) != seen[2]
    except ImageError:
        return True


class Readers:
    """Reads images ahead, in order.

    Args:
        reader: what is done to each image.
        workers: processes; 0 reads in a thread of this process, where a crash of a codec ends everything.
    """

    def __init__(self, reader: ImageReader, workers: int) -> None:
        self._reader, self._workers = reader, workers
        self._local = threading.local()
        self._processes: list[_Process] = []
        self._closed = False
        self._pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="reader")

    def __enter__(self) -> "Readers":
        return self

    def __exit__(self, *error: object) -> None:
        self._closed = True
        for wait in (False, True):  # processes that hang, and then those that were being started
            self._pool.shutdown(wait=wait, cancel_futures=True)
            for process in list(self._processes):
                process.end()

    def read(self, items: Iterable[Item], ahead: int) -> Iterator[tuple[Item, Loaded]]:
        """Read images in the order given.

        Args:
            items: taken only as far as they are read.
            ahead: how many may be read and not yet asked for.

        Yields:
            Each image with what became of it.

        Raises:
            CaptionerError: no process can be started.
        """
        waiting: deque[tuple[Item, Future[Loaded]]] = deque()
        for item in items:
            waiting.append((item, self._pool.submit(self._read, item)))
            if len(waiting) > ahead:
                earliest, future = waiting.popleft()
                yield earliest, future.result()
        while waiting:
            earliest, future = waiting.popleft()
            yield earliest, future.result()

    def _read(self, item: Item) -> Loaded:
        if self._workers == 0:
            return self._reader(item)
        how = ""
        for _ in range(_ATTEMPTS):
            process = getattr(self._local, "process", None)
            if process is None:
                process = self._local.process = _Process()
                self._processes.append(process)
            try:
                if not process.ready:
                    process.ready = process.ask(self._reader)
                loaded: Loaded = process.ask(item)
                return loaded
            except (EOFError, OSError, pickle.UnpicklingError) as error:
                how = process.end(patience=1)
                self._processes.remove(process)
                self._local.process = None
                if self._closed:
                    break
                if not process.ready and not process.was_killed:
                    raise CaptionerError(f"no process that reads images can be started ({how})") from error
        return Loaded(error=f"{display_name(str(item))}: its reading was broken off ({how})")


class _Process:
    """One process that reads images; ``ready`` once it knows how."""

    def __init__(self) -> None:
        places = [os.path.abspath(place) for place in sys.path]  # noqa: PTH100 (entries may be "")
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-c", _START, *places],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # so that Ctrl-C at the terminal does not reach it
            )
        except OSError as error:
            raise CaptionerError(f"no process that reads images can be started ({error})") from error
        assert self._popen.stdin is not None and self._popen.stdout is not None  # noqa: PT018
        self._to, self._from = self._popen.stdin, self._popen.stdout
        self.ready = self.was_killed = False

    def ask(self, value: object) -> Any:
        """Send a value, the reader first and then places of images, and wait for the answer."""
        pickle.dump(value, self._to, protocol=pickle.HIGHEST_PROTOCOL)
        self._to.flush()
        return pickle.load(self._from)

    def end(self, patience: float = 0) -> str:
        """Wait some seconds for its end, or else stop it, and say how it ended."""
        try:
            code = self._popen.wait(patience)
        except subprocess.TimeoutExpired:
            self._popen.kill()  # it has nothing to save
            code = self._popen.wait()
        for stream in (self._to, self._from):
            with suppress(OSError):  # what was left to send goes nowhere
                stream.close()
        self.was_killed = code < 0
        if self.was_killed:
            return f"{signal.Signals(-code).name} ended the process"
        return f"the process ended with exit code {code}"


def serve() -> None:
    """Read an :class:`ImageReader`, then answer images until the input ends: the work of a reading process."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null, messages = os.open(os.devnull, os.O_RDWR), os.dup(2)
    for stream in (0, 1, 2):  # a library that prints must spoil neither the answers nor the messages
        os.dup2(null, stream)
    answer: object = True
    try:
        reader: ImageReader = pickle.load(incoming)
        while True:
            pickle.dump(answer, outgoing, protocol=pickle.HIGHEST_PROTOCOL)
            outgoing.flush()
            answer = reader(pickle.load(incoming))
    except (EOFError, BrokenPipeError):  # the other side has gone
        os._exit(0)
    except BaseException:  # what we do wrong is said
        os.dup2(messages, 2)
        raise
