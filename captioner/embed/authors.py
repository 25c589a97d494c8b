"""Who wrote a text in an image file: a person, the maker of the camera, or a program that signs its files."""

import re
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from functools import cache
from pathlib import Path
from unicodedata import category

_FILE = Path(__file__).with_name("makers.txt")
_PLACEHOLDERS = {"#": r"[0-9]+(?:[.,][0-9]+)*", "*": r"\S+", "@": r"\w+=\S*(?: \w+=\S*)*"}
_MOST_UNPRINTABLE = 0.25  # of the characters of a text; more are the numbers of a camera, not words


class Author(Enum):
    """Who wrote a text; the value is what to say of it."""

    PERSON = ""  # or a program that writes sentences, as this one does
    MAKER = " (a camera's words)"
    PROGRAM = " (a program's signature)"


def author_of(text: str, *, comment: bool) -> Author:
    """Find out who wrote a text: whoever is not known to write it of itself is a person.

    Args:
        text: the whole of it.
        comment: it stands in a field for comments, which programs sign.
    """
    text = " ".join(text.replace("\0", " ").split())
    known = _known()
    if comment and known["programs"].fullmatch(text):
        return Author.PROGRAM
    return Author.MAKER if known["makers"].fullmatch(text) else Author.PERSON


def plain_text(text: str) -> str:
    """A comment without NULs and blanks around it; empty where it is not text but numbers of some kind."""
    text = text.replace("\0", " ").strip().removeprefix("\ufeff")
    odd = sum(each in "\ufffd\uffff" or (category(each) == "Cc" and not each.isspace()) for each in text)
    return "" if odd > _MOST_UNPRINTABLE * len(text) else text


def decoded(data: bytes, *encodings: str) -> str:
    """A text in the first of some encodings, UTF-8 where none is given, that can be it; else in Latin-1."""
    for encoding in encodings or ("utf-8",):
        with suppress(UnicodeDecodeError):
            return data.decode(encoding)
    return data.decode("latin-1")


@cache
def _known() -> dict[str, re.Pattern[str]]:
    """What ``makers.txt`` lists, by section."""
    sections: dict[str, list[str]] = {}
    for line in _lines():
        if line.startswith("["):
            sections[line.strip("[]")] = []
        else:
            parts = (_PLACEHOLDERS.get(part, re.escape(part)) for part in re.split("([#*@])", line))
            sections[list(sections)[-1]].append("".join(parts))
    return {name: re.compile("|".join(texts), re.IGNORECASE) for name, texts in sections.items()}


def _lines() -> Iterator[str]:
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("# ") and line != "#":
            yield line.strip()
