"""A captioned image as a record, the names of splits, and the reading of files that all formats share."""

import ast
import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from captioner import tars
from captioner.errors import DatasetError, OptionError

ImageId = int | str

ALL = "all"
"""Asks for every split; as a record's own split: the data set does not say."""

SPLIT_NAMES = {"train": "train", "val": "val", "dev": "val", "validation": "val", "test": "test"}
"""Every accepted name of a split, and what the split is called here."""

_NAMED = 3  # how many things a message names


@dataclass(frozen=True)
class Record:
    """One image and all of its captions.

    Attributes:
        image_id: COCO's number where the data set has one, else the image's name; unique within a data set.
        path: where the image should lie, perhaps in a tar; whether it does is for :func:`present` to say.
        captions: the captions as written, in the file's order, at least one.
        split: ``"train"``, ``"val"`` or ``"test"``, or ``"all"`` where the data set does not say.
        row: where there is a ready-made vector instead of an image, its row in the array at ``path``.
        domain: the part of the data set that is also scored alone, such as ``"out-domain"`` of nocaps; empty for none.
    """

    image_id: ImageId
    path: Path
    captions: tuple[str, ...]
    split: str
    row: int | None = None
    domain: str = ""


def canonical_split(name: str) -> str:
    """The name used here for a split: ``train``, ``val`` (also dev, validation), ``test`` or ``all``.

    Raises:
        OptionError: for any other name.
    """
    if name == ALL:
        return ALL
    if name not in SPLIT_NAMES:
        raise OptionError(f"`split` {name}: no such split", f"choose from {', '.join(SPLIT_NAMES)}, {ALL}")
    return SPLIT_NAMES[name]


def refuse_train_split(records: Sequence[Record], label: str, purpose: str) -> None:
    """Accept images that models are not trained on.

    Args:
        records: images.
        label: what to call them.
        purpose: what they are for, as a verb.

    Raises:
        OptionError: some are of a train split.
    """
    if any(record.split == "train" for record in records):
        raise OptionError(f"{label}: holds a train split", f"{purpose} on images that are not trained on")


def present(records: Sequence[Record], skip_missing: bool) -> tuple[list[Record], list[Record]]:
    """Divide records into those whose image is on disk and those whose image is absent.

    Args:
        records: what a reader returned.
        skip_missing: whether absent images are left out instead of being an error.

    Returns:
        The kept and the absent records, each in the order given.

    Raises:
        DatasetError: when not one image is there, or when some are absent and ``skip_missing`` is false.
    """
    kept: list[Record] = []
    absent: list[Record] = []
    for record in records:
        (kept if tars.is_file(record.path) else absent).append(record)
    if records and not kept:
        folders = list(dict.fromkeys(str(record.path.parent) for record in records))
        what = f"not one of the {len(records):,} images is in {listed(folders)}"
        advice = "say with `images` where the images are"
        raise DatasetError(f"{what} (the first would be {records[0].path.name})", advice)
    if absent and not skip_missing:
        names = listed([record.path.name for record in absent])
        raise DatasetError(
            f"{len(absent):,} of {len(records):,} images are absent from {absent[0].path.parent}: {names}",
            "give `skip_missing` to go on without them",
        )
    return kept, absent


def listed(names: Sequence[str], separator: str = ", ") -> str:
    """Name the first few of some things, for a one-line message."""
    return separator.join([*names[:_NAMED], *(["..."] if len(names) > _NAMED else [])])


_LEAST = 2  # the CIDEr of a single image is always 0


def held_out(names: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """Choose a seeded share of some images.

    A digest of seed and name ranks them, so that the choice does not depend on their order. Unless the share
    is 0, at least two images are held out (one of two or three), and at least one is left.

    Args:
        names: the images, each once.
        share: at least 0 and below 1.
        seed: chooses which.
    """
    least = 1 if len(names) < 2 * _LEAST else _LEAST
    count = min(max(least, round(share * len(names))), len(names) - 1) if share and names else 0
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return frozenset(ranked[:count])


_SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_NAMES)})(?![a-z])")
SPLIT_WORDS = {**SPLIT_NAMES, "training": "train", "valid": "val", "testing": "test"}
"""What folders and cells of tables may call a split besides, in lower case."""


def split_in(name: str) -> str:
    """The one split that the name of a file contains as a word, else ``all``."""
    found = {SPLIT_NAMES[word] for word in _SPLIT_WORD.findall(name)}
    return found.pop() if len(found) == 1 else ALL


def split_of_folders(name: str) -> str:
    """The split that the outermost folder of that name in a relative path stands for, else ``all``."""
    folders = (part.lower() for part in name.split("/")[:-1])
    return next((SPLIT_WORDS[folder] for folder in folders if folder in SPLIT_WORDS), ALL)


_UNSPACED = r"[\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"  # kana and Chinese characters
_BETWEEN_UNSPACED = re.compile(rf"(?<={_UNSPACED})(?=\w)|(?<=\w)(?={_UNSPACED})")


def spaced(caption: str) -> str:
    """A Japanese or Chinese caption with a blank at each character, which then is a word of its own."""
    return _BETWEEN_UNSPACED.sub(" ", caption)


def spoken(captions: Sequence[str]) -> tuple[str, ...]:
    """The captions that say something; white space alone is no caption."""
    return tuple(caption for caption in captions if caption.strip())


_TEXT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_ITEM = rf"(?:{_TEXT}|np\.str_\({_TEXT}\))"
_ITEMS = re.compile(rf"[\[(]\s*{_ITEM}(?:(?:\s*,\s*|\s+){_ITEM})*(?:\s*,)?\s*[\])]", re.DOTALL)


def cell_texts(cell: object, where: str) -> tuple[str, ...] | None:
    """What is said in one cell of a table: a list of texts, also as JSON, Python or NumPy print it, or one text.

    Returns:
        The texts; None if the cell holds anything else.

    Raises:
        DatasetError: the cell, which is at ``where``, looks like a list of texts, but is none.
    """
    if not isinstance(cell, str):
        is_list = isinstance(cell, list | tuple) and all(isinstance(text, str) for text in cell)
        return spoken(cast("Sequence[str]", cell)) if is_list else None
    text = cell.strip()
    with suppress(ValueError, SyntaxError, RecursionError):
        if text[:1] == "[" and isinstance(found := json.loads(text), list) and all(isinstance(t, str) for t in found):
            return spoken(found)
    with suppress(ValueError, SyntaxError):
        if _ITEMS.fullmatch(text):
            return spoken([str(ast.literal_eval(each)) for each in re.findall(_TEXT, text, re.DOTALL)])
    if re.match(r"\[\s*['\"]", text) and text.endswith("]"):
        raise DatasetError(f"{where} holds a list of captions that cannot be read", "write one row a caption")
    return spoken([cell])


class ByPath:
    """Finds the id of an image by the end of its path.

    Args:
        listed: paths, and the ids of the images that lie there.
        source: the file that lists them, for messages.

    Raises:
        DatasetError: one path has two ids.
    """

    def __init__(self, listed: Iterable[tuple[str, ImageId]], source: str | Path) -> None:
        self._ids: dict[tuple[str, ...], ImageId] = {}
        for name, image_id in listed:
            parts = _parts(name)
            if (other := self._ids.setdefault(parts, image_id)) != image_id:
                raise DatasetError(f"{source}: {'/'.join(parts)} has two ids, {other} and {image_id}")

    def __call__(self, path: str) -> ImageId | None:
        """The id of the longest listed path that a path ends in; None if there is none."""
        parts = _parts(path)
        return next((self._ids[parts[n:]] for n in range(len(parts)) if parts[n:] in self._ids), None)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for parts in self._ids:
            found.setdefault(parts[-1] if parts else "", []).append("/".join(parts))
        return found

    def ending_in(self, path: str) -> list[str]:
        """The listed paths that end in a path."""
        end = "/" + "/".join(_parts(path))
        return [each for each in self._by_name.get(end.rpartition("/")[2], ()) if f"/{each}".endswith(end)]


def lying_in(folder: Path, name: str) -> Path:
    """Where an image lies, whether the folder is the one that its name starts from or one that the name goes through.

    ``a/x.jpg`` is ``x.jpg`` in the folder ``photos/a`` if there is no ``a/x.jpg``, and ``a/x.jpg`` in any other.
    """
    parts, above = _parts(name), _parts(os.path.abspath(folder))  # noqa: PTH100 - resolve() follows links
    shared = next((n for n in range(len(parts) - 1, 0, -1) if above[-n:] == parts[:n]), 0)
    whole = folder.joinpath(*parts)
    return folder.joinpath(*parts[shared:]) if shared and not whole.is_file() else whole


def _parts(path: str) -> tuple[str, ...]:
    """What spellings of a path have in common: ``a/x.jpg``, ``./a/x.jpg``, ``b/../a/x.jpg``, and with backslashes."""
    parts = os.path.normpath(path.replace("\\", "/")).replace(os.sep, "/").split("/")
    return tuple(part for part in parts if part not in ("", ".", ".."))


_UNREADABLE = (OSError, EOFError, zlib.error)  # the last two if it is compressed


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 file (with or without byte-order mark, perhaps ``.gz``), line ends as they are in the file.

    Raises:
        DatasetError: when the file is absent, unreadable, empty or not UTF-8, also while it is being read.
    """
    try:
        with _opened(path) as file:
            if path.stat().st_size == 0:
                raise DatasetError(f"{path}: the file is empty")
            with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
                yield text
    except UnicodeDecodeError as error:
        number = 0
        with suppress(*_UNREADABLE), _opened(path) as lines:
            number = next(n for n, line in enumerate(lines, 1) if line.decode(errors="ignore").encode() != line)
        raise DatasetError(f"{path}: not UTF-8 text (line {number:,})", "save it as UTF-8") from error
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: there is no such file") from error
    except _UNREADABLE as error:
        raise DatasetError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def read_json(path: Path) -> Any:
    """The contents of a JSON file.

    Raises:
        DatasetError: when the file cannot be read or is not whole, valid JSON.
    """
    with open_text(path) as file:
        text = file.read()
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno} ({error.msg})",
            "perhaps the file is cut short",
        ) from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not valid JSON ({error})") from error


def inside(folder: Path, name: str, file: Path) -> Path:
    """The path of the image ``name`` in ``folder``, which the name may go through, or be written with backslashes.

    Raises:
        DatasetError: when the name that ``file`` gives leads out of the folder or is no name at all.
    """
    if not name or "\0" in name:
        raise DatasetError(f"{file}: {name!r} is not the name of an image")
    path = folder / name
    if "\\" in name and not path.is_file():
        name = name.replace("\\", "/")
        path = folder / name
    if os.sep in name or "/" in name or name in (".", ".."):
        root, full = os.path.abspath(folder), os.path.abspath(path)  # noqa: PTH100 - resolve() follows links
        if os.path.commonpath([root, full]) != root or full == root:
            raise DatasetError(f"{file}: the image {name!r} lies outside the folder {folder}")
        if not path.exists() and (other := lying_in(folder, name)).exists():
            return other
    return path


def placed(folder: Path, name: str, file: Path) -> tuple[str, Path]:
    """The one name of an image, which is ``a.jpg`` for ``./a.jpg`` too, and where it lies; see :func:`inside`."""
    path = inside(folder, name, file)
    return (name if path.name == name else Path(os.path.relpath(path, folder)).as_posix()), path
