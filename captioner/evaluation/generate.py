"""Captions for the images of a data set."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from captioner.errors import EvaluationError, ImageError, OptionError
from captioner.metrics.evaluate import name_some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from captioner.caption import Caption
    from captioner.captioner import Captioner
    from captioner.datasets.records import ImageId, Record
    from captioner.decoding.options import DecodingOptions
    from captioner.images import Pixels

    Image = Pixels | ImageError


@dataclass(frozen=True)
class Generated:
    """The best caption of each image, and the images that could not be read, each with the reason."""

    best: dict[ImageId, Caption]
    unreadable: dict[ImageId, str]

    @property
    def captions(self) -> dict[ImageId, str]:
        """The captions as texts."""
        return {image_id: caption.text for image_id, caption in self.best.items()}


class Readable(NamedTuple):
    """A batch of images: the records that can be read, their pixels, and why others cannot."""

    readable: list[Record]
    pixels: list[Pixels]
    broken: dict[ImageId, str]


def generate(
    captioner: Captioner,
    records: Sequence[Record],
    decoding: DecodingOptions,
    *,
    batch_size: int,
    skip_unreadable: bool,
    on_progress: Callable[[int], Any] = lambda images: None,
) -> Generated:
    """Captions the photos of some records, the best caption of each.

    Args:
        captioner: the model with its preprocessing.
        records: the photos.
        decoding: how to search for captions.
        batch_size: photos captioned at once.
        skip_unreadable: whether broken photos are left out instead of being an error.
        on_progress: called with the number of photos done since the last call.

    Raises:
        OptionError: the batch size is below 1.
        EvaluationError: an image is broken, and ``skip_unreadable`` is false; or all photos are.
    """
    if batch_size < 1:
        raise OptionError(f"`batch_size` must be at least 1, not {batch_size}")
    if records and records[0].row is not None:
        return _generate_of_vectors(captioner, records, decoding, batch_size, skip_unreadable, on_progress)
    found = Generated({}, {})
    for batch in readable_batches(captioner, records, batch_size, skip_unreadable):
        found.unreadable.update(batch.broken)
        if batch.pixels:
            made = captioner.caption(batch.pixels, decoding, attention=False)
            found.best.update((r.image_id, best) for r, (best, *_) in zip(batch.readable, made, strict=True))
        on_progress(len(batch.readable) + len(batch.broken))
    _check_some(found, records)
    return found


def readable_batches(
    captioner: Captioner, records: Sequence[Record], batch_size: int, skip_unreadable: bool
) -> Iterator[Readable]:
    """Reads the photos of some records, batch by batch, one batch ahead.

    Args:
        captioner: knows how its encoder sees photos.
        records: the photos.
        batch_size: photos read at once.
        skip_unreadable: whether broken photos are left out instead of being an error.

    Raises:
        EvaluationError: an image is broken, and ``skip_unreadable`` is false.
    """
    batches = [records[start : start + batch_size] for start in range(0, len(records), batch_size)]
    for batch, images in zip(batches, _read_ahead(captioner, batches), strict=True):
        pairs = list(zip(batch, images, strict=True))
        broken = {r.image_id: str(p) for r, p in pairs if isinstance(p, ImageError)}
        _check_readable(broken, skip_unreadable)
        good = [(r, p) for r, p in pairs if not isinstance(p, ImageError)]
        yield Readable([r for r, _ in good], [p for _, p in good], broken)


def _generate_of_vectors(
    captioner: Captioner,
    records: Sequence[Record],
    decoding: DecodingOptions,
    batch_size: int,
    skip_unreadable: bool,
    on_progress: Callable[[int], Any],
) -> Generated:
    """Captions ready-made vectors, all of one file."""
    from captioner.bulk.pipeline import caption_rows, check_shape
    from captioner.datasets.codes import open_vectors

    found = Generated({}, {})
    vectors = open_vectors(records[0].path)
    check_shape(captioner, vectors)
    rows = [record.row for record in records if record.row is not None]
    results = caption_rows(captioner, vectors, rows, decoding, batch_size=batch_size)
    for record, result in zip(records, results, strict=True):
        if result.error is None:
            found.best[record.image_id] = result.captions[0]
        else:
            found.unreadable[record.image_id] = result.error
        _check_readable(found.unreadable, skip_unreadable)
        on_progress(1)
    _check_some(found, records)
    return found


def _check_readable(broken: Mapping[ImageId, str], skip_unreadable: bool) -> None:
    if broken and not skip_unreadable:
        reason = next(iter(broken.values()))
        raise EvaluationError(
            f"{len(broken)} images cannot be read: {name_some(broken)} ({reason})",
            "give `skip_missing` to go on without them",
        )


def _check_some(found: Generated, records: Sequence[Record]) -> None:
    if not found.best:
        raise EvaluationError(f"not one of {len(records)} images can be read")


def _read_ahead(captioner: Captioner, batches: Sequence[Sequence[Record]]) -> Iterator[list[Image]]:
    """Yields the images of each batch; threads read the next batch while the model works on this one."""

    def read(path: Path) -> Image:
        try:
            return captioner.preprocess(path)
        except ImageError as error:
            return error

    with ThreadPoolExecutor() as pool:
        coming = deque([pool.submit(read, record.path) for record in batch] for batch in batches[:1])
        for batch in batches[1:]:
            coming.append([pool.submit(read, record.path) for record in batch])
            yield [image.result() for image in coming.popleft()]
        for last in coming:
            yield [image.result() for image in last]
