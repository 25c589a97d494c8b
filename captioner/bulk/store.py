"""The store of a run: one SQLite file beside the output, from which the output follows.

It holds the images in the order of the output, what became of each, thumbnails and settings. A batch is one
transaction, which also notes how long the output is with it. So a torn last line, a rewrite that was cut off and a
format that cannot grow can always be made good. SQLite survives ``kill -9`` and power cuts, and finds one image among
ten million. The file is called ``.journal``, as in earlier releases, whose files are taken over.

It keeps a rollback journal and no write-ahead log: a batch takes 1.4 ms with the one and 0.5 ms with the other, next to
nothing beside its captions. But what a killed run leaves is nearly always the one file, which can be moved
with its output, and a disk that is nearly full has no need for a log of 4 MB.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from captioner.caption import Caption
from captioner.errors import OutputError
from captioner.images import reading, tars
from captioner.records import Captions, Record

Key = int | bytes  # of an image: what only one in a run may have
_VERSION = 2
_BY_PIXELS = "CREATE INDEX IF NOT EXISTS by_pixels ON records (pixels) WHERE captions IS NOT NULL"
_SCHEMA = f"""
    CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE images (place INTEGER PRIMARY KEY, name BLOB UNIQUE, member TEXT);
    CREATE TABLE records (place INTEGER PRIMARY KEY, size INTEGER, modified INTEGER, digest BLOB, pixels BLOB,
                          image_id INTEGER, captions TEXT, error TEXT, thumbnail BLOB);
    {_BY_PIXELS};
    PRAGMA user_version = {_VERSION};
"""
# Of this run alone, in a file without a name: what was listed, and what of it is due, in the order of its turn.
_QUEUE = """
    CREATE TEMP TABLE listed (rank INTEGER PRIMARY KEY, name BLOB, member TEXT);
    CREATE TEMP TABLE due (turn INTEGER PRIMARY KEY, place INTEGER UNIQUE, kind TEXT);
"""
_COLUMNS = "size, modified, digest, pixels, image_id, captions, error, thumbnail"
_CACHE_KB = 32_000  # the index of a million digests takes this much; with 2 MB writing them takes half as long again
_PAGE_BYTES = 8192  # with the usual 4096, large runs and merges take a tenth longer
_DUE_TOGETHER = 256  # images


class DamagedStoreError(OutputError):
    """A file that has the name of a store is none, is damaged, or has a layout of the future."""


class Seen(NamedTuple):
    """What is stored of an image that has been listed again."""

    size: int | None
    modified: int | None
    digest: bytes | None
    image_id: int | None
    error: str | None


class Store:
    """The store of one output, locked against other processes until it is closed or the process ends.

    Nothing is changed before :meth:`begin`; a store that is closed without it is as it was.

    Args:
        path: its file; None for one that no run can go on with.
        new: there is none yet.

    Attributes:
        state: settings, and what else is noted; empty as long as nothing has been begun.
        disordered: images were not listed in the order of the output.

    Raises:
        OutputError: it cannot be opened, is damaged, or another process holds it.
    """

    def __init__(self, path: Path | None = None, *, new: bool = False) -> None:
        self.path, self._is_new = path, new
        self.state: dict[str, Any] = {}
        self.disordered = self._begun = False
        self._turn = self._listed = self._last_place = self._last_record = 0
        with self._errors(ValueError, TypeError):
            if new and path is not None:
                _rollback_of(path).unlink(missing_ok=True)  # of a store that was deleted by hand
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
            self._db = sqlite3.connect(path or "", isolation_level=None, timeout=0)
            try:
                self._lock()
            except BaseException:
                self._db.close()  # or it would hold its lock until it is collected as garbage
                raise

    def _lock(self) -> None:
        lasting = ("locking_mode = EXCLUSIVE", "synchronous = FULL")
        for pragma in (f"page_size = {_PAGE_BYTES}", f"cache_size = -{_CACHE_KB}", *lasting):
            self._db.execute(f"PRAGMA {pragma}")
        self._run(_QUEUE)
        self._db.execute("BEGIN EXCLUSIVE")
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise DamagedStoreError(f"{self.path}: was written by a newer captioner", "use that one, or `overwrite`")
        if "state" in tables:
            self.state = {name: json.loads(value) for name, value in self._db.execute("SELECT * FROM state")}
        if "entries" in tables:
            self._take_over()
        elif self.path is None:
            self._run(_SCHEMA)
        if self.state:
            self._db.execute(_BY_PIXELS)  # which :meth:`absorb` leaves to the run that goes on
            self._last_record = self._first("SELECT max(place) FROM records") or 0

    def _take_over(self) -> None:
        """Bring what an earlier release has left into order; it has not noted how long the output is."""
        finished = self.state.get("finished") == self._first("SELECT max(place) FROM entries")
        self._db.execute("ALTER TABLE state RENAME TO older")
        self._run(_SCHEMA)
        self._db.execute("INSERT INTO state SELECT * FROM older")
        self._db.execute("INSERT INTO images (name) SELECT image FROM entries ORDER BY place")
        columns = _COLUMNS.replace("pixels", "NULL")
        self._db.execute(f"INSERT INTO records SELECT images.place, {columns} FROM entries JOIN images ON name = image")
        self._run("DROP TABLE older; DROP TABLE entries;")
        self.note(finished=finished, older=True)

    def anew(self, settings: dict[str, object], **state: object) -> None:
        """Drop everything, and note settings."""
        with self.transaction():
            for (table,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                self._db.execute(f"DROP TABLE {table}")
            self._run(_SCHEMA)
            self.state = {}
            self.note(settings=settings, **state)
        self._last_record = 0

    def begin(self) -> None:
        """Make all changes so far lasting."""
        if not self._begun:
            with self._errors():
                self._db.execute("COMMIT")
            self._begun = True

    def note(self, **state: object) -> None:
        """Change the state; nothing is written if it is so already."""
        changed = {name: value for name, value in state.items() if self.state.get(name) != value}
        if changed:
            with self.transaction():
                rows = [(name, json.dumps(value)) for name, value in changed.items()]
                self._db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", rows)
            self.state |= changed

    def enlist(self, items: Sequence[tars.Item]) -> Iterator[tuple[int, tars.Item, Seen | None]]:
        """Take down images that were listed after those before.

        Yields:
            The place of each, and what is stored of it; but for those whose turn comes, or has come, already.
        """
        rows = [(os.fsencode(str(item)), packed(item)) for item in items]
        with self.transaction():
            self._db.executemany("INSERT INTO listed (name, member) VALUES (?, ?)", rows)
            # Tars may have been made anew, with the same images at other places.
            self._db.execute(
                """INSERT INTO images (name, member) SELECT name, member FROM listed WHERE rank > ? ORDER BY rank
                ON CONFLICT (name) DO UPDATE SET member = excluded.member WHERE images.member IS NOT excluded.member""",
                (self._listed,),
            )
            found = self._db.execute(
                """SELECT place, kind, records.place, size, modified, digest, image_id, error
                FROM listed CROSS JOIN images USING (name) LEFT JOIN records USING (place) LEFT JOIN due USING (place)
                WHERE rank > ? ORDER BY rank""",
                (self._listed,),
            ).fetchall()
            early = [row[:1] for row in found if row[1] == "early"]
            self._db.executemany("UPDATE due SET kind = '' WHERE place = ?", early)
        self._listed += len(rows)
        for item, (place, kind, recorded, *seen) in zip(items, found, strict=True):
            self.disordered |= place < self._last_place
            self._last_place = place
            if kind is None:
                yield place, item, None if recorded is None else Seen(*seen)

    def queue(self, places: Iterable[int], kind: str = "") -> None:
        """Have images their turn, after those that have it already; ``kind`` says why, such as ``changed``."""
        with self.transaction():
            rows = ((place, kind) for place in places)
            self._db.executemany("INSERT OR IGNORE INTO due (place, kind) VALUES (?, ?)", rows)

    def queue_pending(self) -> int:
        """Begin with files that earlier runs have listed and not come to; how many that are."""
        with self.transaction():
            return self._db.execute(
                """INSERT INTO due (place, kind) SELECT place, 'early' FROM images
                LEFT JOIN records USING (place) WHERE records.place IS NULL AND member IS NULL ORDER BY place"""
            ).rowcount

    def put_off(self, image: str) -> bool:
        """Let a file that an earlier run has listed wait until this one lists it; False if it has done so already."""
        query = "UPDATE due SET place = NULL WHERE kind = 'early' AND place = (SELECT place FROM images WHERE name = ?)"
        with self.transaction():
            return self._db.execute(query, (os.fsencode(image),)).rowcount > 0

    def due(self) -> list[tuple[tars.Item, str]]:
        """The next images whose turn it is, each with the kind of :meth:`queue`; empty if there are none at present."""
        with self._errors():
            rows = self._db.execute(
                "SELECT turn, kind, name, member FROM due JOIN images USING (place) WHERE turn > ? LIMIT ?",
                (self._turn, _DUE_TOGETHER),
            ).fetchall()
        if rows:
            self._turn = rows[-1][0]
        return [(unpacked(name, member), kind) for _, kind, name, member in rows]

    def put(self, records: Iterable[Record]) -> tuple[list[Record], bool]:
        """Add records of images that were listed, within a transaction; one that is there is replaced.

        Returns:
            Those of images that had none, and whether the output grows by them: none was replaced by something else,
            and all come after those that were there.
        """
        new, grows = [], True
        for record in records:
            row = _row(record)
            place, known, *old = self._db.execute(
                """SELECT images.place, records.place, image_id, captions, error, thumbnail
                FROM images LEFT JOIN records USING (place) WHERE name = ?""",
                (os.fsencode(record.name),),
            ).fetchone()
            if known is None:
                new.append(record)
                grows &= place > self._last_record
                self._last_record = max(place, self._last_record)
            else:
                grows &= tuple(old) == row[-len(old) :]
            self._db.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (place, *row))
        return new, grows

    def forget(self, images: Iterable[str]) -> None:
        """Drop failures of tars and folders that can be read now; the output is stale if there were any."""
        failed = "SELECT name FROM records CROSS JOIN images USING (place) WHERE error IS NOT NULL"
        which = "place = (SELECT place FROM images WHERE name = ? AND name NOT IN (SELECT name FROM listed))"
        with self.transaction():
            names = [(os.fsencode(image),) for image in images]
            names += [(name,) for (name,) in self._db.execute(failed) if Path(os.fsdecode(name)).is_dir()]
            dropped = self._db.executemany(f"DELETE FROM records WHERE error IS NOT NULL AND {which}", names).rowcount
            if dropped > 0:
                self.note(stale=True)

    def find(self, image: str) -> Record | None:
        """The record of an image."""
        return next(self._select("name = ?", os.fsencode(image)), None)

    def captions_of(self, pixels: bytes) -> Captions | None:
        """Captions of an image that looks the same, if one has been captioned."""
        found = next(self._select("pixels = ? AND captions IS NOT NULL LIMIT 1", pixels), None)
        return None if found is None else found.captions

    def records(self) -> Iterator[Record]:
        """All records in the order of the output."""
        return self._select("true ORDER BY place")

    def _select(self, condition: str, *values: object) -> Iterator[Record]:
        query = f"SELECT name, {_COLUMNS} FROM records JOIN images USING (place) WHERE {condition}"
        with self._errors(ValueError, TypeError):
            for row in self._db.execute(query, values):
                yield _record(row)

    def reorder(self) -> None:
        """Bring images into the order in which they were listed; others go before them, as they were."""
        with self.transaction():
            self._db.execute("CREATE TEMP TABLE ranks (old INTEGER PRIMARY KEY, new INTEGER)")
            self._db.execute(
                """INSERT INTO ranks SELECT place, row_number() OVER (ORDER BY rank IS NOT NULL, rank, place)
                FROM images LEFT JOIN (SELECT name, min(rank) AS rank FROM listed GROUP BY name) USING (name)"""
            )
            for table in ("images", "records"):
                self._db.execute(f"UPDATE {table} SET place = -(SELECT new FROM ranks WHERE old = place)")
                self._db.execute(f"UPDATE {table} SET place = -place")
            self._db.execute("DROP TABLE ranks")
            self.note(stale=True)
        self.disordered = False

    def absorb(self, outputs: Iterable[Path]) -> None:
        """Add all that the stores of other outputs hold, one after the other, which nobody may write meanwhile.

        Nothing here waits for the disk. The next note does, for all of it: nobody else may know of this store before.

        Raises:
            OutputError: an image is in two of them.
        """
        self._run("DROP INDEX by_pixels; PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF")
        for output in outputs:
            with self._errors():
                self._db.execute("ATTACH ? AS part", (os.fspath(store_of(output)),))
            try:
                with self.transaction():
                    last = self._first("SELECT max(place) FROM main.images") or 0
                    self._db.execute(f"INSERT INTO images SELECT place + {last}, name, member FROM part.images")
                    self._db.execute(f"INSERT INTO records SELECT place + {last}, {_COLUMNS} FROM part.records")
            except DamagedStoreError as error:
                if not isinstance(error.__cause__, sqlite3.IntegrityError):
                    raise
                what = f"{output}: holds images that another shard holds, too"
                raise OutputError(what, "their lists of images differ; caption these shards anew") from error
            self._db.execute("DETACH part")
        self._db.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        """Let others have it."""
        if self.path is not None and self._begun and not self._db.in_transaction:
            # What a killed process left is useless now. The store is still locked, so it is not another run's.
            with suppress(OSError):
                _rollback_of(self.path).unlink(missing_ok=True)
        elif self.path is not None and self._is_new and not self._begun:
            remove_store(self.path)
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is changed inside, or nothing."""
        with self._errors():
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN")
            with self._db:  # commits, or takes it back
                yield

    def _first(self, query: str) -> Any:
        return self._db.execute(query).fetchone()[0]

    def _run(self, statements: str) -> None:
        """Execute without ending a transaction, as ``executescript`` would."""
        for statement in filter(str.strip, statements.split(";")):
            self._db.execute(statement)

    @contextmanager
    def _errors(self, *damage: type[Exception]) -> Iterator[None]:
        """Turn failures of SQLite, and exceptions that mean damage, into ours."""
        try:
            yield
        except FileExistsError as error:
            raise OutputError(f"{self.path}: another captioner has just begun to write it") from error
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise OutputError(f"{self.path}: another captioner is writing here", "wait for it") from error
            if self.path is None:
                with kept_somewhere():
                    raise
            advice = "what is written is whole, and the same command goes on"
            if any(what in str(error) for what in ("unable to open", "readonly")):
                advice = "make it a file that can be written, or choose another `output`"
            raise OutputError(f"cannot write {self.path}: {error}", advice) from error
        except (sqlite3.DatabaseError, *damage) as error:  # type: ignore[misc]
            what = f"{self.path}: is damaged or no journal of captioner"
            raise DamagedStoreError(what, "`overwrite` begins anew") from error


def store_of(path: Path) -> Path:
    """Where the store of an output file lies."""
    return path.with_name(path.name + ".journal")


def remove_store(path: Path) -> None:
    """Delete a store that is of no use."""
    path.unlink(missing_ok=True)
    _rollback_of(path).unlink(missing_ok=True)


def _rollback_of(path: Path) -> Path:
    """Where SQLite keeps what it needs to take back a transaction that was cut off."""
    return path.with_name(path.name + "-journal")


@contextmanager
def kept_somewhere() -> Iterator[None]:
    """Say what to do where a list of images inside the block finds no room in the folder of temporary files.

    Raises:
        OutputError: it did not.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        advice = "TMPDIR names a folder with more room"
        raise OutputError(f"the list of images cannot be kept ({error})", advice) from error


def packed(item: tars.Item) -> str | None:
    """Where an image lies, if that is not a file by its name."""
    if isinstance(item, Path):
        return None
    return json.dumps((item.tar, item.offset, item.size, item.modified, item.error))


def unpacked(image: bytes, member: str | None) -> tars.Item:
    """The image that has a name and lies where :func:`packed` says."""
    name = os.fsdecode(image)
    return Path(name) if member is None else tars.Member(name, *json.loads(member))


def _row(record: Record) -> tuple[object, ...]:
    seen = record.identity
    identity = (None,) * 4 if seen is None else (seen.size, seen.modified, seen.digest, seen.pixels)
    captions = [(each.text, each.log_prob, each.confidence) for each in record.captions]
    texts = None if record.error is not None else json.dumps(captions)
    return (*identity, record.image_id, texts, record.error, record.thumbnail)


def _record(row: tuple[Any, ...]) -> Record:
    name, size, modified, digest, pixels, image_id, captions, error, thumbnail = row
    return Record(
        os.fsdecode(name),
        tuple(Caption(text, log_prob, confidence=sure) for text, log_prob, sure in json.loads(captions or "[]")),
        error,
        image_id,
        None if digest is None else reading.Identity(size, modified, digest, pixels),
        thumbnail,
    )
