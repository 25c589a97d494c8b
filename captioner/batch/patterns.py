"""Names of many files in one word, as shells write them; whoever quotes it wants it expanded here."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from captioner.errors import OptionError
from captioner.images import natural_order

_BRACES = re.compile(r"\{([^{}]*,[^{}]*|(-?[0-9]+)\.\.(-?[0-9]+))\}")
_MOST_NAMES = 1_000_000


def expand(patterns: Iterable[str]) -> list[str]:
    """The files that patterns stand for, each once, in the order of the patterns.

    ``photos-{000..999}.tar`` is a thousand names, ``{a,b}.tar`` two; they need not exist. ``*``, ``?`` and
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
