"""What the classes of ImageNet are called in captions: the table ``concepts.txt`` beside this module."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_LINE = re.compile(r"(?P<words>[a-z ]+?)(?: \((?P<like>[a-z ]+)\))?: (?P<classes>[0-9 -]+)")


@dataclass(frozen=True)
class Concept:
    """Something that several classes show.

    Attributes:
        words: any of these names it in a caption.
        like: words that can stand in their place, one for one, where a vocabulary has none of them; or none.
        classes: numbers of the classes that show it.
    """

    words: tuple[str, ...]
    like: tuple[str, ...]
    classes: tuple[int, ...]


@cache
def read_concepts() -> tuple[Concept, ...]:
    """The concepts of the table."""
    lines = files(__package__).joinpath("concepts.txt").read_text(encoding="utf-8").splitlines()
    return tuple(parse(line) for line in lines if line and not line.startswith("#"))


def parse(line: str) -> Concept:
    """One line of the table, ``words [(words in their place)]: classes``.

    Raises:
        ValueError: the line is malformed.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"no concept: {line!r}")
    classes: list[int] = []
    for part in match["classes"].split():
        first, _, last = part.partition("-")
        classes += range(int(first), int(last or first) + 1)
    return Concept(tuple(match["words"].split()), tuple((match["like"] or "").split()), tuple(classes))
