"""The list of images that a run is about, from whatever names them."""

import glob
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from captioner.bulk.options import FolderOptions, Shard
from captioner.bulk.store import Key, WorkList
from captioner.bulk.tars import Tars
from captioner.errors import ImageError, OptionError, os_errors_as
from captioner.images import display_name
from captioner.images.find import find_images, natural_order

_BLOCK_BYTES = 1 << 16  # many times the longest path
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def list_images(paths: Iterable[str], from_file: str | None, *, recursive: bool) -> Iterator[Path]:
    """Yield the images of files, folders and a list, each once, as :func:`find_images` does.

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


_BRACES = re.compile(r"\{([^{}]*,[^{}]*|(-?[0-9]+)\.\.(-?[0-9]+))\}")
_MOST_NAMES = 1_000_000


def expand(patterns: Iterable[str]) -> list[str]:
    """The files that patterns stand for, each once, in the order of the patterns.

    ``images-{000..999}.tar`` is a thousand names, ``{a,b}.tar`` two; they need not exist. ``*``, ``?`` and
    ``[...]`` stand for files that are there, in natural order. What is a file's name as it is stays it.

    Args:
        patterns: any number, given as `input_tar`.

    Raises:
        OptionError: nothing fits one of them, or it stands for more than a million names.
    """
    names = chain.from_iterable(_expand(pattern) for pattern in patterns)
    return list(dict.fromkeys(names))


def _expand(pattern: str) -> Iterator[str]:
    if not pattern:
        raise OptionError("`input_tar`: an empty name was given")
    if Path(pattern).exists():
        yield pattern
        return
    for count, name in enumerate(_in_braces(pattern)):
        if count >= _MOST_NAMES:
            raise OptionError(f"`input_tar` {pattern!r}: stands for more than {_MOST_NAMES:,} names")
        if glob.escape(name) == name or Path(name).exists():
            yield name
            continue
        found = sorted(map(Path, glob.glob(name)), key=lambda path: (path.parent, natural_order(path.name)))  # noqa: PTH207
        if not found:
            raise OptionError(f"`input_tar` {name!r}: no file fits")
        yield from map(str, found)


def _in_braces(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    before, after = pattern[: match.start()], pattern[match.end() :]
    for choice in _choices(match):
        yield from _in_braces(before + choice + after)


def _choices(match: re.Match[str]) -> Iterable[str]:
    words, first, last = match.groups()
    if first is None:
        return words.split(",") if isinstance(words, str) else ()
    start, end = int(first), int(last)
    padded = any(re.fullmatch("-?0[0-9]+", each) for each in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if start <= end else -1
    return (f"{number:0{width}}" for number in range(start, end + step, step))


class Inputs:
    """Images to caption, taken down.

    Args:
        paths: files and folders.
        options: tars, lists, and which shard.
        key: see :class:`WorkList`.

    Attributes:
        work: the images of this shard.
        whole: how much all shards have to do; empty if there is but one part.

    Raises:
        OptionError: it cannot be read, or contradicts itself.
        ImageError: there is not one image.
    """

    def __init__(self, paths: Sequence[str], options: FolderOptions, key: Callable[[str], Key | None]) -> None:
        if options.input_tar and (paths or options.from_file is not None):
            raise OptionError("`input_tar` comes without other images", "give these a run of their own")
        self.whole: dict[str, int] = {}
        shard = None if options.shard is None else Shard.parse(options.shard)
        tars = expand(options.input_tar)
        if shard is not None and len(tars) >= shard.count:
            # Whole tars for each, so that nobody has to look into those of others.
            self.whole = {"tars": len(tars)}
            places, shard = shard.of(len(tars)), None
            tars = tars[places.start : places.stop]
        self._tars = Tars(tars)
        listed = self._tars if tars else list_images(paths, options.from_file, recursive=options.recursive)
        self.work = WorkList(listed, key)
        if not self.work.total:
            names = [*paths, *([f"`from_file` {options.from_file}"] if options.from_file else [])]
            raise ImageError(f"no images in {', '.join(names)}")
        if shard is not None:
            self.whole = {"pictures": self.work.total}
            self.work.keep(shard.of(self.work.total))

    @property
    def sound_tars(self) -> list[str]:
        """Tars that nothing is wrong with as a whole."""
        return [tar for tar in self._tars.paths if tar not in self._tars.faulty]

    def close(self) -> None:
        """Forget them."""
        self.work.close()
