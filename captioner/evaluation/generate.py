"""Caption the images of a data set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from captioner.caption import Caption
from captioner.captioner import Captioner
from captioner.datasets.codes import open_vectors
from captioner.datasets.records import ImageId, Record
from captioner.decoding.options import DecodingOptions
from captioner.errors import EvaluationError, ImageError, OptionError
from captioner.images import Pixels
from captioner.metrics.evaluate import name_some
from captioner.vectors import caption_rows, check_shape


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
    """Caption the images of some records, or their ready-made vectors; keep the best caption of each.

    Args:
        captioner: the model with its preprocessing.
        records: the images, or rows of one file of vectors.
        decoding: how to search for captions.
        batch_size: images captioned at once.
        skip_unreadable: whether broken images are left out instead of being an error.
        on_progress: called with the number of images done since the last call.

    Raises:
        OptionError: the batch size is below 1.
        EvaluationError: an image is broken, and ``skip_unreadable`` is false; or all images are.
    """
    if batch_size < 1:
        raise OptionError(f"`batch_size` must be at least 1, not {batch_size}")
    found = Generated({}, {})
    rows = [record.row for record in records if record.row is not None]
    if rows:
        vectors = open_vectors(records[0].path)
        check_shape(captioner, vectors)
        results = caption_rows(captioner, vectors, rows, decoding, batch_size=batch_size)
        for record, result in zip(records, results, strict=True):
            if result.error is None:
                found.best[record.image_id] = result.captions[0]
            else:
                found.unreadable[record.image_id] = result.error
            _check_readable(found.unreadable, skip_unreadable)
            on_progress(1)
    else:
        for batch in readable_batches(captioner, records, batch_size, skip_unreadable):
            found.unreadable.update(batch.broken)
            if batch.pixels:
                made = captioner.caption(batch.pixels, decoding, attention=False)
                found.best.update((r.image_id, best) for r, (best, *_) in zip(batch.readable, made, strict=True))
            on_progress(len(batch.readable) + len(batch.broken))
    if not found.best:
        raise EvaluationError(f"not one of {len(records)} images can be read")
    return found


def readable_batches(
    captioner: Captioner, records: Sequence[Record], batch_size: int, skip_unreadable: bool
) -> Iterator[Readable]:
    """Read the images of some records, batch by batch; threads read one batch ahead.

    Args:
        captioner: knows how its encoder sees images.
        records: the images.
        batch_size: images read at once.
        skip_unreadable: whether broken images are left out instead of being an error.

    Raises:
        EvaluationError: an image is broken, and ``skip_unreadable`` is false.
    """

    def read(record: Record) -> "Pixels | ImageError":
        try:
            return captioner.preprocess(record.path)
        except ImageError as error:
            return error

    batches = [records[start : start + batch_size] for start in range(0, len(records), batch_size)]
    with ThreadPoolExecutor() as pool:
        coming = [pool.map(read, batch) for batch in batches[:1]]
        for place, batch in enumerate(batches):
            coming += [pool.map(read, following) for following in batches[place + 1 : place + 2]]
            found = Readable([], [], {})
            for record, image in zip(batch, coming.pop(0), strict=True):
                if isinstance(image, ImageError):
                    found.broken[record.image_id] = str(image)
                else:
                    found.readable.append(record)
                    found.pixels.append(image)
            _check_readable(found.broken, skip_unreadable)
            yield found


def _check_readable(broken: Mapping[ImageId, str], skip_unreadable: bool) -> None:
    if broken and not skip_unreadable:
        reason = next(iter(broken.values()))
        raise EvaluationError(
            f"{len(broken)} images cannot be read: {name_some(broken)} ({reason})",
            "give `skip_missing` to go on without them",
        )
