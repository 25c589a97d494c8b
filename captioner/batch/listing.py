"""Which pictures are meant: those named on the command line, and those that a list names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from captioner.errors import OptionError, os_errors_as
from captioner.images import display_name, find_images

_BLOCK_BYTES = 1 << 16  # many times the longest path
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def list_pictures(paths: Iterable[str], from_file: str | None, *, recursive: bool) -> Iterator[Path]:
    """Yield the pictures of files, folders and a list, each once, as :func:`find_images` does.

    Args:
        paths: files and folders.
        from_file: a file that names more of them, or ``-`` for standard input; None for none.
        recursive: look into sub-folders.

    Raises:
        OptionError: the list cannot be read.
    """
    listed = iter(()) if from_file is None else read_list(from_file)
    return find_images(chain(paths, listed), recursive=recursive)


def read_list(name: str) -> Iterator[str]:
    """Yield the names in a list: ended by NULs if it holds any, else one a line.

    A byte-order mark and carriage returns at the ends of lines are dropped, and so are empty lines.

    Args:
        name: the file, or ``-`` for standard input.

    Raises:
        OptionError: it cannot be read.
    """
    with os_errors_as(OptionError, f"`from_file` {display_name(name)}: "), ExitStack() as stack:
        file = _standard_input() if name == "-" else stack.enter_context(_open(name))
        yield from _names(file)


def _open(name: str) -> BinaryIO:
    return Path(name).open("rb")


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise OptionError("`from_file` -: standard input is closed")
    return sys.stdin.buffer


def _names(file: BinaryIO) -> Iterator[str]:
    block = file.read(_BLOCK_BYTES).removeprefix(_BYTE_ORDER_MARK)
    end = b"\0" if b"\0" in block else b"\n"
    rest = b""
    while block:
        *whole, rest = (rest + block).split(end)
        yield from map(os.fsdecode, filter(None, (_name(part, end) for part in whole)))
        block = file.read(_BLOCK_BYTES)
    if last := _name(rest, end):
        yield os.fsdecode(last)


def _name(part: bytes, end: bytes) -> bytes:
    return part if end == b"\0" else part.removesuffix(b"\r")
