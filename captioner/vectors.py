"""Captions of vectors that an encoder made earlier, here or elsewhere."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from captioner.captioner import Captioner
from captioner.datasets.codes import SUFFIX, Vectors, open_vectors
from captioner.decoding.options import DecodingOptions
from captioner.engine import Engine
from captioner.errors import DatasetError, OptionError
from captioner.records import Record


def named_vectors(paths: Iterable[str | Path]) -> list[Vectors]:
    """Open files of vectors, if such are named by their suffix ``.npy``.

    Returns:
        The files; none where images and folders are named.

    Raises:
        OptionError: both vectors and images are named.
        DatasetError: a file cannot be read or holds no vectors.
    """
    names = [Path(path) for path in paths]
    vectors = [name for name in names if name.suffix.lower() == SUFFIX]
    if vectors and len(vectors) < len(names):
        raise OptionError(f"{vectors[0]} holds vectors, other files are images", "caption them one by one")
    return [open_vectors(name) for name in vectors]


def caption_vectors(
    captioner: Captioner, files: Sequence[Vectors], options: DecodingOptions, *, batch_size: int = 16
) -> Iterator[Record]:
    """Caption the vectors of files.

    A vector that holds no numbers gives a record with an error, and the others go on.

    Args:
        captioner: the model; with or without encoder.
        files: opened by :func:`captioner.datasets.codes.open_vectors`.
        options: decoding options.
        batch_size: vectors that go through the decoder together; does not change the captions.

    Yields:
        One record a vector in the order of the rows, called ``FILE#ROW``; rows are counted from 0.

    Raises:
        OptionError: ``batch_size`` is below 1.
        DatasetError: the vectors of a file are not such as the model takes.
    """
    for vectors in files:
        check_shape(captioner, vectors)
    for vectors in files:
        yield from caption_rows(captioner, vectors, range(len(vectors)), options, batch_size=batch_size)


def caption_rows(
    captioner: Captioner, vectors: Vectors, rows: Sequence[int], options: DecodingOptions, *, batch_size: int
) -> Iterator[Record]:
    """Caption some rows of a file that :func:`check_shape` has accepted; see :func:`caption_vectors`."""
    if batch_size < 1:
        raise OptionError(f"`batch_size` must be at least 1, not {batch_size}")
    with Engine(captioner, options) as engine:
        for start in range(0, len(rows), batch_size):
            some = rows[start : start + batch_size]
            block = vectors.array[list(some)]
            problems = vectors.problems(some, block)
            sound = block[[row not in problems for row in some]]
            seeds = captioner.seeds(list(sound), options)
            captions = iter(engine.write(sound.astype(np.float32, copy=False), seeds))
            for row in some:
                name = Path(vectors.name(row))
                yield Record(name, error=problems[row]) if row in problems else Record(name, tuple(next(captions)))


def check_shape(captioner: Captioner, vectors: Vectors) -> None:
    """Check that the encoder of a model could have made these vectors, as far as their shape shows.

    Raises:
        DatasetError: another encoder must have made them.
        OptionError: the model is an ensemble that takes no vectors.
    """
    captioner.check_takes_vectors()
    _, regions, channels = vectors.array.shape
    config = captioner.config
    if channels != config.channels:
        raise DatasetError(
            f"{vectors.path}: has {channels} features a vector, the checkpoint takes {config.channels}",
            "another encoder made these vectors",
        )
    if config.attention == "none":  # only their mean counts then
        return
    if regions == 1:
        raise DatasetError(
            f"{vectors.path}: has one vector an image, but the checkpoint looks at regions",
            "give an array (images, regions, features)",
        )
    if captioner.sees_images:
        made, _ = captioner.model.shape
        if made != regions:
            raise DatasetError(
                f"{vectors.path}: has {regions} regions an image, the encoder of the checkpoint makes {made}"
            )
