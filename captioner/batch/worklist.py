"""The list of pictures to caption: taken down once, on disk, so that ten million fit."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from captioner.batch.tars import Item, Member
from captioner.errors import OutputError

Key = int | bytes


class WorkList:
    """Pictures in order, each with a key that only one of them may have.

    Args:
        items: the pictures.
        key: a picture's key; None for none.

    Attributes:
        total: how many pictures were taken down.
    """

    def __init__(self, items: Iterable[Item], key: Callable[[str], Key | None]) -> None:
        # A database without a name lies in a temporary file that goes when it is closed.
        self._db = sqlite3.connect("", isolation_level=None)
        rows = ((os.fsencode(str(item)), key_of(item, key), _packed(item)) for item in items)
        with self._transaction():
            self._db.execute(
                "CREATE TABLE work (place INTEGER PRIMARY KEY, image BLOB, key BLOB, member TEXT)"
            )
            self._db.execute("CREATE TABLE due (place INTEGER PRIMARY KEY)")
            self._db.executemany("INSERT INTO work (image, key, member) VALUES (?, ?, ?)", rows)
        self.total = self._count("work")

    def clash(self) -> tuple[str, str] | None:
        """Two pictures with one key, if there are such."""
        row = self._db.execute(
            "SELECT min(place), max(place) FROM work WHERE key IS NOT NULL "
            "GROUP BY key HAVING count(*) > 1 ORDER BY 1 LIMIT 1"
        ).fetchone()
        if row is None:
            return None
        first, second = self._images("work WHERE place IN (?, ?)", row)
        return first, second

    def keep(self, places: range) -> None:
        """Drop all but the pictures at some consecutive places, counted from 0."""
        with self._transaction():
            self._db.execute("DELETE FROM work WHERE place <= ? OR place > ?", (places.start, places.stop))

    def __len__(self) -> int:
        return self._count("work")

    def __iter__(self) -> Iterator[str]:
        return self._images("work")

    def items(self) -> Iterator[Item]:
        """The pictures, in order."""
        for row in self._db.execute("SELECT image, member FROM work ORDER BY place"):
            yield _unpacked(*row)

    def choose(self, is_due: Callable[[Item], bool]) -> int:
        """Ask of each picture in order whether it is due; how many are."""
        with (
            self._transaction(),
            closing(self._db.execute("SELECT place, image, member FROM work ORDER BY 1")) as rows,
        ):
            due = ((place,) for place, *item in rows if is_due(_unpacked(*item)))
            self._db.executemany("INSERT INTO due VALUES (?)", due)
        return self._count("due")

    def due(self) -> Iterator[Item]:
        """The pictures that are due, in order."""
        for row in self._db.execute("SELECT image, member FROM work NATURAL JOIN due ORDER BY place"):
            yield _unpacked(*row)

    def close(self) -> None:
        """Forget it."""
        self._db.close()

    def _count(self, table: str) -> int:
        count: int = self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return count

    def _images(self, of: str, values: tuple[int, ...] = ()) -> Iterator[str]:
        for (image,) in self._db.execute(f"SELECT image FROM {of} ORDER BY place", values):
            yield os.fsdecode(image)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"the list of pictures cannot be kept ({error})", "TMPDIR names a folder with more room"
            ) from error


def key_of(item: Item, key: Callable[[str], Key | None]) -> Key | None:
    """A picture's key; what is known to be none needs none."""
    return None if isinstance(item, Member) and item.error is not None else key(str(item))


def _packed(item: Item) -> str | None:
    if isinstance(item, Path):
        return None
    return json.dumps((item.tar, item.offset, item.size, item.modified, item.error))


def _unpacked(image: bytes, member: str | None) -> Item:
    name = os.fsdecode(image)
    return Path(name) if member is None else Member(name, *json.loads(member))
