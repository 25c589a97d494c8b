"""Caption many pictures, in order, whatever some of them are like."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from captioner.batch.engine import Engine
from captioner.batch.reading import Loaded, PictureReader
from captioner.batch.records import Identity
from captioner.batch.tars import Item
from captioner.batch.workers import Readers
from captioner.caption import Caption
from captioner.captioner import Captioner
from captioner.decoding.options import DecodingOptions
from captioner.errors import ImageError, OptionError
from captioner.images import DEFAULT_MAX_PIXELS, Pixels, find_images

_REMEMBERED = 50_000  # pictures; a caption takes about 500 bytes
_REPORTED = 4  # times the batch size: after as many pictures there is a report at the latest


@dataclass(frozen=True)
class Result:
    """What became of one picture.

    Attributes:
        image: its path, or where it is in a tar.
        captions: its captions; empty if it failed, or if they are known.
        error: why it failed, in one line; None if it did not.
        identity: of its file; None if that could not be read.
        known: whether there were captions of a file with the same bytes before.
        thumbnail: a small JPEG of it, if asked for.
    """

    image: Item
    captions: tuple[Caption, ...] = ()
    error: str | None = None
    identity: Identity | None = None
    known: bool = False
    thumbnail: bytes | None = None


def caption_paths(
    captioner: Captioner,
    paths: Iterable[str | Path],
    options: DecodingOptions,
    *,
    recursive: bool = True,
    batch_size: int = 16,
    max_pixels: int | None = None,
    workers: int = 0,
) -> Iterator[Result]:
    """Caption pictures and folders of pictures.

    The next batch is read and scaled while the network works on the present one. A picture that cannot
    be read gives a result with an error, and the others go on. Files with the same bytes are captioned once.

    Args:
        captioner: the model.
        paths: files and folders.
        options: decoding options.
        recursive: look into sub-folders.
        batch_size: pictures that go through the network together; does not change the captions.
        max_pixels: larger pictures are refused; None for the usual limit.
        workers: processes that read pictures; 0 for a thread, where a crash of a codec ends everything.

    Yields:
        One result a picture, in the order in which the pictures are found.

    Raises:
        OptionError: ``batch_size`` or ``max_pixels`` is below 1, or ``workers`` below 0.
        ImageError: there is not one picture.
    """
    limit = DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
    if batch_size < 1 or limit < 1:
        raise OptionError(f"batch_size and max_pixels must be at least 1, not {batch_size} and {limit}")
    if workers < 0:
        raise OptionError(f"workers must be at least 0, not {workers}")
    paths = list(paths)
    nothing = True
    reader = PictureReader(captioner.preprocessing, limit)
    with Readers(reader, workers) as readers, Engine(captioner, options) as engine:
        found = readers.read(find_images(paths, recursive=recursive), ahead=read_ahead(batch_size))
        for batch in caption_loaded(engine, found, batch_size):
            nothing = False
            yield from batch
    if nothing:
        raise ImageError(f"no pictures in {', '.join(map(str, paths))}")


def read_ahead(batch_size: int) -> int:
    """How many pictures may be ready and wait for the network."""
    return batch_size + 16


def caption_loaded(
    engine: Engine,
    pictures: Iterable[tuple[Item, Loaded]],
    batch_size: int,
    is_known: Callable[[bytes], bool] = lambda digest: False,
) -> Iterator[list[Result]]:
    """Caption pictures that have been read.

    Args:
        engine: the network.
        pictures: each with what was read, in order.
        batch_size: pictures that go through the network together.
        is_known: whether a file with this digest has been captioned before; asked for in this thread.

    Yields:
        Batch by batch the results of consecutive pictures.
    """
    memory = _Memory(_REMEMBERED + 4 * batch_size)
    flying: deque[_Batch] = deque()
    batch = _Batch(memory)
    for item, loaded in pictures:
        batch.add(item, loaded, is_known)
        if batch.is_full(batch_size):
            flying.append(batch.start(engine))
            batch = _Batch(memory)
            # One is written of while the next one is seen, and no thread is idle.
            if len(flying) > 1 + engine.threads // batch_size:
                yield flying.popleft().finish()
    if batch.pictures:
        flying.append(batch.start(engine))
    while flying:
        yield flying.popleft().finish()


class _Memory(OrderedDict[bytes, tuple[Caption, ...]]):
    """Captions of the files seen last, by digest; none yet for those in the making."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forget(self) -> None:
        """Drop what was not asked for longest."""
        while len(self) > self.size:
            self.popitem(last=False)


class _Batch:
    """Consecutive pictures: those that the network has to see, and the others between them."""

    def __init__(self, memory: _Memory) -> None:
        self.pictures: list[tuple[Item, Loaded, bool]] = []
        self._memory = memory
        self._fresh: dict[bytes, Pixels] = {}
        self._parts: list[Future[list[list[Caption]]]] = []

    def add(self, item: Item, loaded: Loaded, is_known: Callable[[bytes], bool]) -> None:
        """Take the next picture."""
        known = False
        if loaded.pixels is not None and loaded.identity is not None:
            digest = loaded.identity.digest
            if digest in self._memory:
                self._memory.move_to_end(digest)
            elif is_known(digest):
                known = True
            else:
                self._fresh[digest], self._memory[digest] = loaded.pixels, ()
        self.pictures.append((item, loaded, known))

    def is_full(self, size: int) -> bool:
        """Whether it is time to begin, if only to report many pictures that need no network."""
        return len(self._fresh) >= size or len(self.pictures) >= _REPORTED * size

    def start(self, engine: Engine) -> _Batch:
        """Hand it to the network."""
        self._parts = engine.submit(list(self._fresh.values()))
        return self

    def finish(self) -> list[Result]:
        """Wait for the network; batches must finish in the order in which they were filled."""
        captions = (tuple(each) for part in self._parts for each in part.result())
        self._memory.update(zip(self._fresh, captions, strict=True))
        results = [self._result(*picture) for picture in self.pictures]
        self._memory.forget()
        return results

    def _result(self, item: Item, loaded: Loaded, known: bool) -> Result:
        if loaded.identity is None or loaded.error is not None:
            return Result(item, error=loaded.error, identity=loaded.identity)
        captions = () if known else self._memory[loaded.identity.digest]
        return Result(item, captions, None, loaded.identity, known, loaded.thumbnail)
