"""Course files: ready-made vectors of images and their captions, without the images.

``image_codes.npy`` holds one vector an image, or one vector a region; ``captions_tokenized.json`` a list with one list
of captions for each image, in the same order. A seeded share of the images is held out for validation.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from captioner.datasets.options import Source
from captioner.datasets.records import ALL, Record, read_json, spoken
from captioner.errors import DatasetError, os_errors_as

Floats = np.typing.NDArray[np.float16] | np.typing.NDArray[np.float32]

SUFFIX = ".npy"

_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 10_000  # bytes; the header of a plain array has 118
_MOST_CHANNELS, _MOST_ROWS = 1 << 20, 1 << 40
_LARGEST = 1e12  # no encoder's output comes near, and a decoder could do nothing but overflow on more
_BLOCK_BYTES = 4 << 20

# NumPy parses the header as Python text, which can fail in many ways.
_UNREADABLE = (
    ValueError,
    SyntaxError,
    TokenError,
    TypeError,
    LookupError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True)
class Vectors:
    """The vectors of some images.

    Attributes:
        path: the file.
        array: ``(images, regions, channels)``, float16 or float32, mapped into memory; a file that holds
            ``(images, channels)`` has one region.
    """

    path: Path
    array: Floats

    def __len__(self) -> int:
        return len(self.array)

    def name(self, row: int) -> str:
        """What to call one vector: ``codes.npy#7``."""
        return f"{self.path}#{row}"

    def blocks(self) -> Iterator[tuple[Sequence[int], Floats]]:
        """The whole array in pieces of a few megabytes, each with the numbers of its rows."""
        size = max(1, _BLOCK_BYTES // self.array[0].nbytes)
        for start in range(0, len(self.array), size):
            block = self.array[start : start + size]
            yield range(start, start + len(block)), block

    def problems(self, rows: Sequence[int], block: Floats) -> dict[int, str]:
        """Which rows cannot be used, and why.

        Args:
            rows: their numbers.
            block: what they hold, ``(rows, regions, channels)``.
        """
        # Written so that not-a-number fails too; float16 could not hold the limit.
        sound = np.all(np.abs(block.astype(np.float32)) <= _LARGEST, axis=(1, 2)).tolist()
        return {
            row: f"{self.name(row)}: holds values that are infinite or not numbers"
            for row, good in zip(rows, sound, strict=True)
            if not good
        }


def open_vectors(path: Path) -> Vectors:
    """Map an array of vectors. Nothing in the file is trusted or executed.

    Args:
        path: a ``.npy`` file of float16 or float32, ``(images, channels)`` or ``(images, regions, channels)``.

    Raises:
        DatasetError: the file is absent, cut short, no such array, or holds anything but such numbers.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: {'is not a file' if path.exists() else 'there is no such file'}")
    with os_errors_as(DatasetError, f"{path}: cannot be read (", ")"):
        size = path.stat().st_size
        with path.open("rb") as file:
            shape, fortran, dtype = _header(path, file)
            offset = file.tell()
        _check_kind(path, shape, dtype)
        _check_size(path, shape, dtype, size - offset)
        array: Any = np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")
    return Vectors(path, array if array.ndim == 3 else array[:, None, :])


def _header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of the array; the file is left at its first number."""
    start = file.read(12)
    if start[:6] != _MAGIC:
        raise DatasetError(f"{path}: is not a NumPy array", "write it with numpy.save")
    # Looked at first, because NumPy would read as many bytes as the file says.
    field = start[8:10] if start[6:7] == b"\x01" else start[8:12]
    length = int.from_bytes(field, "little")
    if length > _MOST_HEADER:
        raise DatasetError(f"{path}: its header of {length:,} bytes is too long for an array of numbers")
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(file)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:100]
        raise DatasetError(f"{path}: is a damaged NumPy array ({reason})") from error
    return shape, fortran, dtype


def _check_kind(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.str not in ("<f2", "<f4"):
        kind = "Python objects, which are never loaded" if dtype.hasobject else f"the type {str(dtype)[:40]}"
        raise DatasetError(f"{path}: holds {kind}", "save numbers as float16 or float32: array.astype('float32')")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise DatasetError(
            f"{path}: has the shape {_shown(shape)}, not (images, features) or (images, regions, features)"
        )
    if shape[-1] > _MOST_CHANNELS or max(shape) > _MOST_ROWS:
        raise DatasetError(f"{path}: has the shape {_shown(shape)}", f"at most {_MOST_CHANNELS:,} features can be used")


def _check_size(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], found: int) -> None:
    needed = math.prod(shape) * dtype.itemsize
    if found < needed:
        raise DatasetError(
            f"{path}: is cut short: {_shown(shape)} takes {needed:,} bytes, not {found:,}", "copy it again"
        )
    if found > needed:
        raise DatasetError(f"{path}: holds {found - needed:,} bytes behind its array", "save one array a file")


def _shown(shape: tuple[int, ...]) -> str:
    return str(shape)[:60]


_CODES, _CAPTIONS = "image_codes.npy", "captions_tokenized.json"


def codes_file(source: Source) -> Path:
    """Say where the vectors of a data set lie."""
    # What is not named lies in the folder; DatasetOptions ensures that there is one then.
    return source.codes or (source.folder or Path()) / _CODES


def read(source: Source, split: str) -> list[Record]:
    """Records of one split in the files' order; the id of an image is its row, counted from 0.

    Raises:
        DatasetError: a file is absent or malformed, their lengths differ, or an image has no caption and must
            not be skipped.
    """
    codes, file = codes_file(source), source.captions or (source.folder or Path()) / _CAPTIONS
    vectors = open_vectors(codes)
    captions = _captions(file)
    if len(captions) != len(vectors):
        raise DatasetError(
            f"{codes} has {len(vectors):,} images, {file} has captions of {len(captions):,}",
            "both must be about the same images in the same order",
        )
    silent = [row for row, texts in enumerate(captions) if not texts]
    if silent and not source.skip_missing:
        raise DatasetError(
            f"{file}: {len(silent):,} of {len(captions):,} images have no caption, the first is image {silent[0]}",
            "give `skip_missing` to go on without them",
        )
    spoken_of = [row for row, texts in enumerate(captions) if texts]
    held_back = source.held_out([str(row) for row in spoken_of])
    records = []
    for row in spoken_of:
        own = "val" if str(row) in held_back else "train"
        if split in (own, ALL):
            records.append(Record(row, codes, captions[row], own, row))
    return records


def _captions(file: Path) -> list[tuple[str, ...]]:
    content = read_json(file)
    if not isinstance(content, list):
        raise DatasetError(f"{file}: must hold a list with one list of captions for each image")
    captions = []
    for row, texts in enumerate(content):
        if not isinstance(texts, list):
            raise DatasetError(f"{file}: image {row}: must have a list of captions, not {_kind(texts)}")
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise DatasetError(f"{file}: image {row}, caption {place}: must be a text, not {_kind(text)}")
        captions.append(spoken(texts))
    return captions


def _kind(value: object) -> str:
    names = {str: "a text", list: "a list", dict: "an object", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
