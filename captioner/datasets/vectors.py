"""Ready-made vectors of pictures: a NumPy array on disk that is mapped, never loaded as a whole."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, BinaryIO

from captioner.errors import DatasetError, os_errors_as

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float16] | npt.NDArray[np.float32]

SUFFIX = ".npy"

_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 10_000  # bytes; the header of a plain array has 118
_MOST_CHANNELS, _MOST_ROWS = 1 << 20, 1 << 40
_LARGEST = 1e12  # no encoder's output comes near, and a decoder could do nothing but overflow on more
_BLOCK_BYTES = 4 << 20

# NumPy parses the header as Python text, which can fail in many ways.
_HEADER_ERRORS = (
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
    """The vectors of some pictures.

    Attributes:
        path: the file.
        array: ``(pictures, regions, channels)``, float16 or float32, mapped into memory; a file that holds
            ``(pictures, channels)`` has one region.
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
        import numpy as np

        # Written so that not-a-number fails too; float16 could not hold the limit.
        sound = np.all(np.abs(block.astype(np.float32)) <= _LARGEST, axis=(1, 2)).tolist()
        return {
            row: f"{self.name(row)}: holds values that are infinite or not numbers"
            for row, good in zip(rows, sound, strict=True)
            if not good
        }


def open_vectors(path: Path) -> Vectors:
    """Maps an array of vectors. Nothing in the file is trusted or executed.

    Args:
        path: a ``.npy`` file of float16 or float32, ``(pictures, channels)`` or
            ``(pictures, regions, channels)``.

    Raises:
        DatasetError: the file is absent, cut short, no such array, or holds anything but such numbers.
    """
    import numpy as np

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
    from numpy.lib import format as npy

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
    except _HEADER_ERRORS as error:
        reason = " ".join(str(error).split())[:100]
        raise DatasetError(f"{path}: is a damaged NumPy array ({reason})") from error
    return shape, fortran, dtype


def _check_kind(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.str not in ("<f2", "<f4"):
        kind = "Python objects, which are never loaded" if dtype.hasobject else f"the type {str(dtype)[:40]}"
        raise DatasetError(
            f"{path}: holds {kind}", "save numbers as float16 or float32: array.astype('float32')"
        )
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise DatasetError(
            f"{path}: has the shape {_shown(shape)}, not (images, features) or (images, regions, features)"
        )
    if shape[-1] > _MOST_CHANNELS or max(shape) > _MOST_ROWS:
        raise DatasetError(
            f"{path}: has the shape {_shown(shape)}", f"at most {_MOST_CHANNELS:,} features can be used"
        )


def _check_size(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], found: int) -> None:
    needed = math.prod(shape) * dtype.itemsize
    if found < needed:
        raise DatasetError(
            f"{path}: is cut short: {_shown(shape)} takes {needed:,} bytes, not {found:,}", "copy it again"
        )
    if found > needed:
        raise DatasetError(
            f"{path}: holds {found - needed:,} bytes behind its array", "save one array a file"
        )


def _shown(shape: tuple[int, ...]) -> str:
    return str(shape)[:60]
