"""From images to records: read ahead, captioned in batches, and each look once."""

from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

from captioner import engine
from captioner.caption import Caption
from captioner.captioner import Captioner
from captioner.decoding.options import DecodingOptions
from captioner.errors import ImageError, OptionError
from captioner.images import DEFAULT_MAX_PIXELS, Pixels, find, tars
from captioner.images.reading import ImageReader, Loaded, Readers
from captioner.records import Captions, Record

_REMEMBERED = 50_000  # images; a caption takes about 500 bytes
READ_AHEAD = 16  # images that may be ready and wait for the network, beside a batch
_REPORTED = 4  # times the batch size: after as many images there is a report at the latest


def caption_paths(
    captioner: Captioner,
    paths: Iterable[str | Path],
    options: DecodingOptions,
    *,
    recursive: bool = True,
    batch_size: int = 16,
    max_pixels: int | None = None,
    workers: int = 0,
) -> Iterator[Record]:
    """Caption images and folders of images.

    The next batch is read and scaled while the network works on the present one. An image that cannot
    be read gives a record with an error, and the others go on. Images that look the same are captioned once.

    Args:
        captioner: the model.
        paths: files and folders.
        options: decoding options.
        recursive: look into sub-folders.
        batch_size: images that go through the network together; does not change the captions.
        max_pixels: larger images are refused; None for the usual limit.
        workers: processes that read images; 0 for a thread, where a crash of a codec ends everything.

    Yields:
        One record an image, in the order in which the images are found.

    Raises:
        OptionError: ``batch_size`` or ``max_pixels`` is below 1, or ``workers`` below 0.
        ImageError: there is not one image.
    """
    paths = list(paths)
    found = find.find_images(paths, recursive=recursive)
    record = None
    for record in caption_items(
        captioner, found, options, batch_size=batch_size, max_pixels=max_pixels, workers=workers
    ):
        yield record
    if record is None:
        raise ImageError(f"no images in {', '.join(map(str, paths))}")


def caption_items(
    captioner: Captioner,
    items: Iterable[tars.Item],
    options: DecodingOptions,
    *,
    batch_size: int = 16,
    max_pixels: int | None = None,
    workers: int = 0,
) -> Iterator[Record]:
    """Caption images that have been found; see :func:`caption_paths`."""
    limit = DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
    if batch_size < 1 or limit < 1:
        raise OptionError(f"batch_size and max_pixels must be at least 1, not {batch_size} and {limit}")
    if workers < 0:
        raise OptionError(f"workers must be at least 0, not {workers}")
    reader = ImageReader(captioner.preprocessing, limit)
    with Readers(reader, workers) as readers:
        loaded = readers.read(items, ahead=batch_size + READ_AHEAD)
        with closing(caption_loaded(captioner, options, loaded, batch_size)) as batches:
            for batch in batches:
                yield from batch


def caption_loaded(
    captioner: Captioner,
    options: DecodingOptions,
    images: Iterable[tuple[tars.Item, Loaded]],
    batch_size: int,
    *,
    dress: Callable[[Caption], Caption] = lambda caption: caption,
    known: Callable[[tars.Item, Loaded], Captions | None] = lambda item, loaded: None,
) -> Generator[list[Record], None, None]:
    """Caption images that have been read.

    Args:
        captioner: the model.
        options: decoding options.
        images: each with what was read, in order.
        batch_size: images that go through the network together.
        dress: what is made of each caption.
        known: dressed captions of an image that looks the same, if one has been captioned; called in this thread.

    Yields:
        Batch by batch the records of consecutive images.
    """
    memory: OrderedDict[bytes, Captions] = OrderedDict()  # of the files seen last; none yet for those in the making
    flying: deque[_Batch] = deque()
    batch = _Batch(memory)
    with engine.Engine(captioner, options) as network:
        for item, loaded in images:
            batch.add(item, loaded, known)
            if batch.is_full(batch_size):
                flying.append(batch.start(network))
                batch = _Batch(memory)
                # One is written of while the next one is seen, and no thread is idle.
                if len(flying) > 1 + network.threads // batch_size:
                    yield flying.popleft().finish(dress)
                    while len(memory) > _REMEMBERED + 4 * batch_size:
                        memory.popitem(last=False)
        if batch.images:
            flying.append(batch.start(network))
        while flying:
            yield flying.popleft().finish(dress)


class _Batch:
    """Consecutive images: those that the network has to see, and the others between them."""

    def __init__(self, memory: OrderedDict[bytes, Captions]) -> None:
        self.images: list[tuple[tars.Item, Loaded, Captions | None]] = []
        self._memory = memory
        self._fresh: dict[bytes, Pixels] = {}
        self._parts: list[Future[list[list[Caption]]]] = []

    def add(self, item: tars.Item, loaded: Loaded, known: Callable[[tars.Item, Loaded], Captions | None]) -> None:
        captions = None
        if loaded.pixels is not None and loaded.identity is not None:
            pixels = loaded.identity.pixels
            if pixels in self._memory:
                self._memory.move_to_end(pixels)
            elif (captions := known(item, loaded)) is None:
                self._fresh[pixels], self._memory[pixels] = loaded.pixels, ()
        self.images.append((item, loaded, captions))

    def is_full(self, size: int) -> bool:
        """Whether it is time to begin, if only to report many images that need no network."""
        return len(self._fresh) >= size or len(self.images) >= _REPORTED * size

    def start(self, network: engine.Engine) -> "_Batch":
        self._parts = network.submit(list(self._fresh.values()))
        return self

    def finish(self, dress: Callable[[Caption], Caption]) -> list[Record]:
        """Wait for the network; batches must finish in the order in which they were filled."""
        captions = (tuple(map(dress, each)) for part in self._parts for each in part.result())
        self._memory.update(zip(self._fresh, captions, strict=True))
        return [self._record(*image) for image in self.images]

    def _record(self, item: tars.Item, loaded: Loaded, known: Captions | None) -> Record:
        seen = loaded.identity
        if seen is None or loaded.error is not None:
            return Record(item, error=loaded.error, identity=seen)
        captions = self._memory[seen.pixels] if known is None else known
        return Record(item, captions, identity=seen, thumbnail=loaded.thumbnail)
