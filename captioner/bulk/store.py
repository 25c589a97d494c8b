"""The journal beside an output file: what has been captioned, of which file, with what settings.

It is what makes going on possible. A batch is committed to it first and written to the output then, so the
output can always be made good from it: a torn last line, a rewrite that was cut off, a format that cannot
grow. It is an SQLite database, because that one survives ``kill -9`` and power cuts, and finds one image
among ten million.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from captioner.bulk.records import Entry, Identity, Line
from captioner.bulk.tars import Item, Member
from captioner.errors import OutputError

_SCHEMA = """
    CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE entries (image BLOB PRIMARY KEY, place INTEGER, size INTEGER, modified INTEGER, digest BLOB,
                          image_id INTEGER, captions TEXT, error TEXT, thumbnail BLOB);
    CREATE INDEX by_place ON entries (place);
    CREATE INDEX by_digest ON entries (digest) WHERE captions IS NOT NULL;
"""
_COLUMNS = "image, place, size, modified, digest, image_id, captions, error, thumbnail"
_PUT = f"""
    INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (image) DO UPDATE SET
        size = excluded.size, modified = excluded.modified, digest = excluded.digest,
        image_id = excluded.image_id, captions = excluded.captions, error = excluded.error,
        thumbnail = excluded.thumbnail
"""


class DamagedJournalError(OutputError):
    """A file that has the name of a journal is none, or is damaged."""


class Journal:
    """The journal of one output, locked against other processes until it is closed or the process ends.

    Args:
        path: its file.
        new: there is none yet.

    Raises:
        OutputError: it cannot be opened, is damaged, or another process holds it.
    """

    def __init__(self, path: Path, *, new: bool) -> None:
        self.path = path
        with self._errors():
            if new:
                _rollback_of(path).unlink(missing_ok=True)  # of a journal that was deleted by hand
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0)
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("BEGIN EXCLUSIVE")
            self._db.execute("COMMIT")
            self._state: dict[str, Any] = {}
            if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self._state = {name: json.loads(value) for name, value in self._db.execute("SELECT * FROM state")}

    @property
    def settings(self) -> dict[str, object] | None:
        """What the captions were made with; None as long as nothing has been begun."""
        return self._state.get("settings")

    @property
    def stale(self) -> bool:
        """Whether the output does not follow from the journal and has to be written anew."""
        return bool(self._state.get("stale", False))

    @property
    def finished(self) -> int | None:
        """The last place in the output when everything was done; None if that has not been reached yet."""
        return self._state.get("finished")

    def begin(self, settings: dict[str, object], *, stale: bool) -> None:
        """Drop everything and begin with other settings.

        Args:
            settings: plain values.
            stale: there is an output, which is to be replaced.
        """
        with self._transaction():
            for (table,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                self._db.execute(f"DROP TABLE {table}")
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._db.execute(statement)
            self._state = {}
            self._note(settings=settings, stale=stale)

    def note(self, **state: object) -> None:
        """Change ``stale`` or ``finished``; nothing is written if they are so already."""
        if any(self._state.get(name) != value for name, value in state.items()):
            with self._transaction():
                self._note(**state)

    def commit(self, entries: Iterable[Entry], *, stale: bool) -> None:
        """Add a batch, all or nothing; an entry of the same image is replaced and keeps its place."""
        with self._transaction():
            place = self.last_place()
            for entry in entries:
                place += 1
                self._db.execute(_PUT, _row(entry, place))
            if stale and not self.stale:
                self._note(stale=True)

    def forget(self, images: Iterable[str]) -> bool:
        """Drop entries of failures; whether there were any."""
        with self._transaction():
            before = self._db.total_changes
            names = ((os.fsencode(image),) for image in images)
            self._db.executemany("DELETE FROM entries WHERE image = ? AND error IS NOT NULL", names)
            dropped = self._db.total_changes > before
            if dropped:
                self._note(stale=True)
        return dropped

    def last_place(self) -> int:
        """Place of the last entry; 0 if there is none."""
        place: int | None = self._db.execute("SELECT max(place) FROM entries").fetchone()[0]
        return place or 0

    def find(self, image: str) -> tuple[Entry, int] | None:
        """The entry of an image, and its place in the output."""
        with self._errors():
            row = self._db.execute(f"SELECT {_COLUMNS} FROM entries WHERE image = ?", (os.fsencode(image),)).fetchone()
        return None if row is None else (_entry(row), row[1])

    def captions_of(self, digest: bytes) -> tuple[Line, ...] | None:
        """Captions of a file with this content, if one has been captioned."""
        with self._errors():
            row = self._db.execute(
                f"SELECT {_COLUMNS} FROM entries WHERE digest = ? AND captions IS NOT NULL LIMIT 1", (digest,)
            ).fetchone()
        return None if row is None else _entry(row).captions

    def entries(self, up_to: int | None = None) -> Iterator[Entry]:
        """All entries in the order of the output, or those up to a place."""
        last = self.last_place() if up_to is None else up_to
        with self._errors():
            query = f"SELECT {_COLUMNS} FROM entries WHERE place <= ? ORDER BY place"
            for row in self._db.execute(query, (last,)):
                yield _entry(row)

    def reorder(self, images: Iterable[str]) -> None:
        """Bring entries into an order; those of other images go before them, as they were."""
        with self._transaction():
            start = self.last_place() + 1
            places = ((place, os.fsencode(image)) for place, image in enumerate(images, start))
            self._db.executemany("UPDATE entries SET place = ? WHERE image = ?", places)
            self._note(stale=True)

    def close(self) -> None:
        """Let others have it."""
        if not self._db.in_transaction:
            # What a killed process left is of no use any more. Still locked, so it is nobody else's.
            with suppress(OSError):
                _rollback_of(self.path).unlink(missing_ok=True)
        self._db.close()

    def _note(self, **state: object) -> None:
        for name, value in state.items():
            self._db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, json.dumps(value)))
            self._state[name] = value

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError as error:
            raise OutputError(f"{self.path}: another captioner has just begun to write it") from error
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise OutputError(f"{self.path}: another captioner is writing here", "wait for it") from error
            raise OutputError(
                f"cannot write {self.path}: {error}", "what is written is whole, and the same command goes on"
            ) from error
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise DamagedJournalError(
                f"{self.path}: is damaged or no journal of captioner", "`overwrite` begins anew"
            ) from error


def remove_journal(path: Path) -> None:
    """Delete a journal that is of no use."""
    path.unlink(missing_ok=True)
    _rollback_of(path).unlink(missing_ok=True)


def _rollback_of(path: Path) -> Path:
    """Where SQLite keeps what it needs to take back a transaction that was cut off."""
    return path.with_name(path.name + "-journal")


def _row(entry: Entry, place: int) -> tuple[object, ...]:
    seen = entry.identity
    identity = (None, None, None) if seen is None else (seen.size, seen.modified, seen.digest)
    captions = None if entry.error is not None else json.dumps(entry.captions)
    return (
        os.fsencode(entry.image),
        place,
        *identity,
        entry.image_id,
        captions,
        entry.error,
        entry.thumbnail,
    )


def _entry(row: tuple[Any, ...]) -> Entry:
    image, _, size, modified, digest, image_id, captions, error, thumbnail = row
    return Entry(
        image=os.fsdecode(image),
        captions=tuple(Line(*line) for line in json.loads(captions or "[]")),
        error=error,
        image_id=image_id,
        identity=None if digest is None else Identity(size, modified, digest),
        thumbnail=thumbnail,
    )


Key = int | bytes


class WorkList:
    """Images in order, each with a key that only one of them may have.

    Args:
        items: the images.
        key: an image's key; None for none.

    Attributes:
        total: how many images were taken down.
    """

    def __init__(self, items: Iterable[Item], key: Callable[[str], Key | None]) -> None:
        # A database without a name lies in a temporary file that goes when it is closed.
        self._db = sqlite3.connect("", isolation_level=None)
        rows = ((os.fsencode(str(item)), key_of(item, key), _packed(item)) for item in items)
        with self._transaction():
            self._db.execute("CREATE TABLE work (place INTEGER PRIMARY KEY, image BLOB, key BLOB, member TEXT)")
            self._db.execute("CREATE TABLE due (place INTEGER PRIMARY KEY)")
            self._db.executemany("INSERT INTO work (image, key, member) VALUES (?, ?, ?)", rows)
        self.total = self._count("work")

    def clash(self) -> tuple[str, str] | None:
        """Two images with one key, if there are such."""
        row = self._db.execute(
            "SELECT min(place), max(place) FROM work WHERE key IS NOT NULL "
            "GROUP BY key HAVING count(*) > 1 ORDER BY 1 LIMIT 1"
        ).fetchone()
        if row is None:
            return None
        first, second = self._images("work WHERE place IN (?, ?)", row)
        return first, second

    def keep(self, places: range) -> None:
        """Drop all but the images at some consecutive places, counted from 0."""
        with self._transaction():
            self._db.execute("DELETE FROM work WHERE place <= ? OR place > ?", (places.start, places.stop))

    def __len__(self) -> int:
        return self._count("work")

    def __iter__(self) -> Iterator[str]:
        return self._images("work")

    def items(self) -> Iterator[Item]:
        """The images, in order."""
        for row in self._db.execute("SELECT image, member FROM work ORDER BY place"):
            yield _unpacked(*row)

    def choose(self, is_due: Callable[[Item], bool]) -> int:
        """Ask of each image in order whether it is due; how many are."""
        with (
            self._transaction(),
            closing(self._db.execute("SELECT place, image, member FROM work ORDER BY 1")) as rows,
        ):
            due = ((place,) for place, *item in rows if is_due(_unpacked(*item)))
            self._db.executemany("INSERT INTO due VALUES (?)", due)
        return self._count("due")

    def due(self) -> Iterator[Item]:
        """The images that are due, in order."""
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
                f"the list of images cannot be kept ({error})", "TMPDIR names a folder with more room"
            ) from error


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
