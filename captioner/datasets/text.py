"""Captions without images: JSON lines, a line for what several people wrote of one image."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from captioner.datasets.records import spoken
from captioner.errors import DatasetError


def read_texts(path: str | Path) -> list[tuple[str, ...]]:
    """Read the captions of a file such as ``{"captions": ["a dog runs", "a brown dog"]}`` in each line.

    Args:
        path: the file, UTF-8, compressed if its name ends in ``.gz``.

    Returns:
        For each image its captions, at least one.

    Raises:
        DatasetError: the file cannot be read, a line is not such an object, or there is no caption at all.
    """
    path = Path(path).expanduser()
    texts = [captions for captions in _lines(path) if captions]
    if not texts:
        raise DatasetError(f"{path}: holds no captions")
    return texts


def _lines(path: Path) -> Iterator[tuple[str, ...]]:
    read = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                if line.strip():
                    captions = json.loads(line)["captions"]
                    if not isinstance(captions, list) or not all(isinstance(each, str) for each in captions):
                        raise TypeError
                    yield spoken(captions)
                read += 1
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        what = f"{path}: line {read + 1:,} is no object with a list of texts as its captions"
        raise DatasetError(what, 'write {"captions": ["...", "..."]} in each line') from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path}: cannot be read after line {read:,} ({reason})") from error
