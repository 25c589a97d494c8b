"""Texts for a command: the lines of a file or of standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from captioner.errors import OptionError

_MOST_BYTES = 16 << 20
_MOST_LINES = 100_000


def read_lines(file: str | None) -> list[str]:
    """The lines with words in them; says on standard error how many others were left out.

    Args:
        file: a path; None for standard input.

    Raises:
        OptionError: there is nothing to read, it is not UTF-8, it is too long, or no line holds a word.
    """
    name = "standard input" if file is None else f"--file {file}"
    try:
        data = _from_standard_input() if file is None else _from_file(file)
    except (OSError, ValueError) as error:  # ValueError: a null character in a path, a closed stream
        raise OptionError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(data) > _MOST_BYTES:
        raise OptionError(f"{name}: is longer than {_MOST_BYTES >> 20} MiB")
    if data.count(b"\n") > _MOST_LINES:
        raise OptionError(f"{name}: has more than {_MOST_LINES:,} lines")
    lines = [
        _decoded(line, f"{name}: line {number}")
        for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
    ]
    if not lines[-1]:  # what follows the last line's end
        lines.pop()
    kept = [line for number, line in enumerate(lines, start=1) if _has_words(line, f"{name}: line {number}")]
    if not kept:
        raise OptionError(f"{name}: holds no text", "give one text a line")
    if empty := len(lines) - len(kept):
        print(f"captioner: {name}: left out {empty:,} line{'s' * (empty > 1)} without words", file=sys.stderr)
    return kept


def _decoded(line: bytes, name: str) -> str:
    try:
        return line.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        raise OptionError(f"{name} is not UTF-8 text") from error


def _has_words(line: str, name: str) -> bool:
    from captioner.scoring import text_words

    try:
        return bool(text_words(line))
    except OptionError as error:
        raise OptionError(f"{name}: {error}") from error


def _from_standard_input() -> bytes:
    if sys.stdin is None:
        raise OptionError("standard input is closed", "give one text a line")
    stream: BinaryIO = sys.stdin.buffer
    if sys.stdin.isatty():
        print("captioner: type one text a line; Ctrl-D ends", file=sys.stderr)
    return _all_of(stream)


def _from_file(file: str) -> bytes:
    with Path(file).open("rb") as stream:
        return _all_of(stream)


def _all_of(stream: BinaryIO) -> bytes:
    return stream.read(_MOST_BYTES + 1)
