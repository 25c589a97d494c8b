"""The journal beside an output file: what has been captioned, of which file, with what settings.

It is what makes going on possible. A batch is committed to it first and written to the output then, so the
output can always be made good from it: a torn last line, a rewrite that was cut off, a format that cannot
grow. It is an SQLite database, because that one survives ``kill -9`` and power cuts, and finds one image
among ten million.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from captioner.bulk.records import Identity, Record
from captioner.caption import Caption
from captioner.errors import OutputError

_SCHEMA = """
    CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE entries (image BLOB PRIMARY KEY, place INTEGER, size INTEGER, modified INTEGER, digest BLOB,
                          image_id INTEGER, captions TEXT, error TEXT, thumbnail BLOB);
    CREATE INDEX by_place ON entries (place);
    CREATE INDEX by_digest ON entries (digest) WHERE captions IS NOT NULL;
"""
_WRITTEN = "image_id, captions, error, thumbnail"  # what outputs are made of
_COLUMNS = f"image, place, size, modified, digest, {_WRITTEN}"
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
            try:
                self._state = self._locked_state()
            except BaseException:
                self._db.close()  # or it would hold its lock until it is collected as garbage
                raise

    def _locked_state(self) -> dict[str, Any]:
        """Lock the journal and read its state; empty as long as nothing has been begun."""
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("BEGIN EXCLUSIVE")
        self._db.execute("COMMIT")
        if not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return {}
        return {name: json.loads(value) for name, value in self._db.execute("SELECT * FROM state")}

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

    def commit(self, records: Iterable[Record]) -> tuple[list[Record], bool]:
        """Add a batch, all or nothing. A record of the same image is replaced and keeps its place.

        Returns:
            The records of images that were not there, and whether another one was replaced by something else: then
            the output is stale.
        """
        new, replaced = [], False
        with self._transaction():
            for place, record in enumerate(records, self.last_place() + 1):
                row = _row(record, place)
                old = self._db.execute(f"SELECT {_WRITTEN} FROM entries WHERE image = ?", row[:1]).fetchone()
                if old is None:
                    new.append(record)
                else:
                    replaced |= old != row[-len(old) :]
                self._db.execute(_PUT, row)
            if replaced and not self.stale:
                self._note(stale=True)
        return new, replaced

    def forget(self, images: Iterable[str]) -> bool:
        """Drop records of failures; whether there were any."""
        with self._transaction():
            before = self._db.total_changes
            names = ((os.fsencode(image),) for image in images)
            self._db.executemany("DELETE FROM entries WHERE image = ? AND error IS NOT NULL", names)
            dropped = self._db.total_changes > before
            if dropped:
                self._note(stale=True)
        return dropped

    def last_place(self) -> int:
        """Place of the last record; 0 if there is none."""
        place: int | None = self._db.execute("SELECT max(place) FROM entries").fetchone()[0]
        return place or 0

    def find(self, image: str) -> tuple[Record, int] | None:
        """The record of an image, and its place in the output."""
        row = self._first("image = ?", os.fsencode(image))
        return None if row is None else (_record(row), row[1])

    def captions_of(self, digest: bytes) -> tuple[Caption, ...] | None:
        """Captions of a file with this content, if one has been captioned."""
        row = self._first("digest = ? AND captions IS NOT NULL", digest)
        return None if row is None else _record(row).captions

    def _first(self, condition: str, value: bytes) -> tuple[Any, ...] | None:
        query = f"SELECT {_COLUMNS} FROM entries WHERE {condition} LIMIT 1"
        with self._errors():
            row: tuple[Any, ...] | None = self._db.execute(query, (value,)).fetchone()
        return row

    def records(self, up_to: int | None = None) -> Iterator[Record]:
        """All records in the order of the output, or those up to a place."""
        last = self.last_place() if up_to is None else up_to
        with self._errors():
            query = f"SELECT {_COLUMNS} FROM entries WHERE place <= ? ORDER BY place"
            for row in self._db.execute(query, (last,)):
                yield _record(row)

    def reorder(self, images: Iterable[str]) -> None:
        """Bring records into an order; those of other images go before them, as they were."""
        with self._transaction():
            start = self.last_place() + 1
            places = ((place, os.fsencode(image)) for place, image in enumerate(images, start))
            self._db.executemany("UPDATE entries SET place = ? WHERE image = ?", places)
            self._note(stale=True)

    def close(self) -> None:
        """Let others have it."""
        if not self._db.in_transaction:
            # What a killed process left is useless now. The journal is still locked, so it is not another run's.
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
            with self._db:  # commits, or takes it back
                yield

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
            advice = "what is written is whole, and the same command goes on"
            raise OutputError(f"cannot write {self.path}: {error}", advice) from error
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            what = f"{self.path}: is damaged or no journal of captioner"
            raise DamagedJournalError(what, "`overwrite` begins anew") from error


def remove_journal(path: Path) -> None:
    """Delete a journal that is of no use."""
    path.unlink(missing_ok=True)
    _rollback_of(path).unlink(missing_ok=True)


def _rollback_of(path: Path) -> Path:
    """Where SQLite keeps what it needs to take back a transaction that was cut off."""
    return path.with_name(path.name + "-journal")


def _row(record: Record, place: int) -> tuple[object, ...]:
    seen = record.identity
    identity = (None, None, None) if seen is None else (seen.size, seen.modified, seen.digest)
    captions = [(each.text, each.log_prob, each.confidence) for each in record.captions]
    texts = None if record.error is not None else json.dumps(captions)
    return (os.fsencode(record.name), place, *identity, record.image_id, texts, record.error, record.thumbnail)


def _record(row: tuple[Any, ...]) -> Record:
    image, _, size, modified, digest, image_id, captions, error, thumbnail = row
    return Record(
        os.fsdecode(image),
        tuple(Caption(text, log_prob, confidence=sure) for text, log_prob, sure in json.loads(captions or "[]")),
        error,
        image_id,
        None if digest is None else Identity(size, modified, digest),
        thumbnail,
    )
