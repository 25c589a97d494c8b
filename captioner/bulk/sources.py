"""The images that a run is about: from files, folders, lists and tars."""

import glob
import hashlib
import json
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

from captioner.bulk.options import FolderOptions, Shard
from captioner.bulk.records import Item, Member
from captioner.bulk.tars import Tars
from captioner.datasets import coco
from captioner.errors import ImageError, OptionError, OutputError, os_errors_as
from captioner.images import display_name, find

Key = int | bytes

_BLOCK_BYTES = 1 << 16  # many times the longest path
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BRACES = re.compile(r"\{([^{}]*,[^{}]*|(-?[0-9]+)\.\.(-?[0-9]+))\}")
_MOST_NAMES = 1_000_000


class Inputs:
    """The images of a run, in order, taken down once on disk, so that ten million fit.

    Args:
        paths: files and folders.
        options: tars, lists, and which shard.
        key: of an image by its name, what only one of them may have; None for nothing.
        wanted: whether a file is taken; those that are not are left for another run.

    Attributes:
        whole: how much all shards have to do; empty if there is but one part.
        omitted: what was left out of folders and tars.

    Raises:
        OptionError: a list cannot be read, or options contradict each other.
        ImageError: there is not one image.
    """

    def __init__(
        self,
        paths: Sequence[str],
        options: FolderOptions,
        key: Callable[[str], Key | None],
        wanted: Callable[[Path], bool] | None = None,
    ) -> None:
        if options.input_tar and (paths or options.from_file is not None):
            raise OptionError("`input_tar` comes without other images", "give these a run of their own")
        self.whole: dict[str, int] = {}
        shard = None if options.shard is None else Shard.parse(options.shard)
        tars = expand(options.input_tar)
        if shard is not None and len(tars) >= shard.count:
            # Whole tars for each, so that no shard has to look into those of others.
            self.whole = {"tars": len(tars)}
            places, shard = shard.of(len(tars)), None
            tars = tars[places.start : places.stop]
        self.omitted = options.omitted
        self._tars = Tars(tars, self.omitted)
        # A database without a name lies in a temporary file that goes when it is closed.
        self._db = sqlite3.connect("", isolation_level=None)
        listed = list_images(paths, options.from_file, recursive=options.recursive, omitted=self.omitted)
        items = self._tars if tars else listed if wanted is None else filter(wanted, listed)
        rows = ((os.fsencode(str(item)), key_of(item, key), _packed(item)) for item in items)
        with self._transaction():
            self._db.execute("CREATE TABLE work (place INTEGER PRIMARY KEY, image BLOB, key BLOB, member TEXT)")
            self._db.execute("CREATE TABLE due (place INTEGER PRIMARY KEY)")
            self._db.executemany("INSERT INTO work (image, key, member) VALUES (?, ?, ?)", rows)
        total = len(self)
        if not total:
            names = [*paths, *([f"`from_file` {options.from_file}"] if options.from_file else [])]
            hint = " (`include_all` takes in what is left out)" * bool(self.omitted.images or self.omitted.folders)
            raise ImageError(f"no images in {', '.join(names)}", f"{self.omitted}{hint}")
        if shard is not None:
            self.whole = {"pictures": total}  # as outputs have it that were begun before the noun was changed
            with self._transaction():
                places = shard.of(total)
                self._db.execute("DELETE FROM work WHERE place <= ? OR place > ?", (places.start, places.stop))

    @property
    def sound_tars(self) -> list[str]:
        """Tars that nothing is wrong with as a whole."""
        return [tar for tar in self._tars.paths if tar not in self._tars.faulty]

    def clash(self) -> tuple[str, str] | None:
        """Two images with one key, if there are any."""
        places = "SELECT min(place), max(place) FROM work WHERE key IS NOT NULL GROUP BY key HAVING count(*) > 1"
        row = self._db.execute(f"{places} ORDER BY 1 LIMIT 1").fetchone()
        if row is None:
            return None
        (first,), (second,) = self._db.execute("SELECT image FROM work WHERE place IN (?, ?) ORDER BY place", row)
        return os.fsdecode(first), os.fsdecode(second)

    def __len__(self) -> int:
        count: int = self._db.execute("SELECT count(*) FROM work").fetchone()[0]
        return count

    def __iter__(self) -> Iterator[Item]:
        for row in self._db.execute("SELECT image, member FROM work ORDER BY place"):
            yield _unpacked(*row)

    @property
    def names(self) -> Iterator[str]:
        """What outputs call the images, in order."""
        for (image,) in self._db.execute("SELECT image FROM work ORDER BY place"):
            yield os.fsdecode(image)

    @property
    def digest(self) -> str:
        """What lists of the same names in the same order share."""
        digest = hashlib.blake2b(digest_size=8)
        for name in self.names:
            digest.update(os.fsencode(name) + b"\0")
        return digest.hexdigest()

    def choose(self, is_due: Callable[[Item], bool]) -> int:
        """Ask of each image in order whether it is due; how many are."""
        with self._transaction(), closing(self._db.execute("SELECT place, image, member FROM work ORDER BY 1")) as rows:
            due = ((place,) for place, *item in rows if is_due(_unpacked(*item)))
            return self._db.executemany("INSERT INTO due VALUES (?)", due).rowcount

    def due(self) -> Iterator[Item]:
        """The images that are due, in order."""
        for row in self._db.execute("SELECT image, member FROM work NATURAL JOIN due ORDER BY place"):
            yield _unpacked(*row)

    def close(self) -> None:
        """Forget them."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            advice = "TMPDIR names a folder with more room"
            raise OutputError(f"the list of images cannot be kept ({error})", advice) from error


def key_of(item: Item, key: Callable[[str], Key | None]) -> Key | None:
    """An image's key; what is known to be none needs none."""
    return None if isinstance(item, Member) and item.error is not None else key(str(item))


def _packed(item: Item) -> str | None:
    if isinstance(item, Path):
        return None
    return json.dumps((item.tar, item.offset, item.size, item.modified, item.error))


def _unpacked(image: bytes, member: str | None) -> Item:
    name = os.fsdecode(image)
    return Path(name) if member is None else Member(name, *json.loads(member))


def list_images(
    paths: Iterable[str], from_file: str | None, *, recursive: bool, omitted: find.Omitted | None = None
) -> Iterator[Path]:
    """Yield the images of files, folders and a list, each once, as :func:`find.find_images` does.

    Args:
        paths: files and folders.
        from_file: a file that names more of them, or ``-`` for standard input; None for none.
        recursive: look into sub-folders.
        omitted: what is left out of folders.

    Raises:
        OptionError: the list cannot be read.
    """
    listed = iter(()) if from_file is None else read_list(from_file)
    return find.find_images(chain(paths, listed), recursive=recursive, omitted=omitted)


def listed_images(
    paths: Sequence[str], options: FolderOptions, weights: Sequence[str] | None
) -> tuple[list[str], FolderOptions]:
    """The images of a COCO file, and the options that write a results file of them, named as its server wants it.

    Args:
        paths: the folder of the images, or nothing for the usual one.
        options: with `images_from`.
        weights: the checkpoints, of which the first names the results; the shipped one unless given.

    Raises:
        OptionError: the options contradict each other.
        DatasetError: the file cannot be read, or there is no such folder.
    """
    file = Path(options.images_from or "")
    if len(paths) > 1 or options.from_file is not None or options.input_tar or options.embed:
        raise OptionError("`images_from` goes with one folder of images, and with no other list", "leave the rest out")
    if options.format not in (None, "coco") or options.annotations is not None:
        raise OptionError("`images_from` writes a COCO results file", "leave out `format` and `annotations`")
    images = coco.listed_images(file, Path(paths[0]) if paths else None)
    name = re.sub(r"[^0-9A-Za-z-]+", "-", Path(weights[0]).stem) if weights else "captioner"
    output = options.output or f"captions_{coco.results_set(file)}_{name}_results.json"
    annotations = os.fspath(file)
    return [*map(str, images)], replace(
        options, images_from=None, format="coco", annotations=annotations, output=output
    )


def read_list(name: str) -> Iterator[str]:
    """Yield the names in a list: ended by NULs if it holds any, else one a line.

    A byte-order mark and carriage returns at the ends of lines are dropped, and so are empty lines.

    Args:
        name: the file, or ``-`` for standard input.

    Raises:
        OptionError: it cannot be read.
    """
    with os_errors_as(OptionError, f"`from_file` {display_name(name)}: "), ExitStack() as stack:
        if name == "-" and sys.stdin is None:
            raise OptionError("`from_file` -: standard input is closed")
        file = sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
        block = file.read(_BLOCK_BYTES).removeprefix(_BYTE_ORDER_MARK)
        end = b"\0" if b"\0" in block else b"\n"
        dropped = b"" if end == b"\0" else b"\r"
        rest = b""
        while block:
            *whole, rest = (rest + block).split(end)
            yield from (os.fsdecode(part) for each in whole if (part := each.removesuffix(dropped)))
            block = file.read(_BLOCK_BYTES)
        if last := rest.removesuffix(dropped):
            yield os.fsdecode(last)


def expand(patterns: Iterable[str]) -> list[str]:
    """The files that patterns stand for, each once, in the order of the patterns.

    ``images-{000..999}.tar`` is a thousand names, ``{a,b}.tar`` two; they need not exist. ``*``, ``?`` and
    ``[...]`` stand for files that are there, in natural order. A pattern that is the name of a file stands for it.

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
        found = sorted(map(Path, glob.glob(name)), key=lambda path: (path.parent, find.natural_order(path.name)))  # noqa: PTH207
        if not found:
            raise OptionError(f"`input_tar` {name!r}: no file fits")
        yield from map(str, found)


def _in_braces(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    words, first, last = match.groups()
    choices = words.split(",") if first is None else _numbers(first, last)
    for choice in choices:
        yield from _in_braces(pattern[: match.start()] + choice + pattern[match.end() :])


def _numbers(first: str, last: str) -> Iterator[str]:
    start, end = int(first), int(last)
    padded = any(re.fullmatch("-?0[0-9]+", each) for each in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if start <= end else -1
    return (f"{number:0{width}}" for number in range(start, end + step, step))
