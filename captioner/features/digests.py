"""Digests of images, remembered by path, so that unchanged files need not be read again.

A file counts as unchanged as long as its size, its times of change and its inode stay what they were. Both
times are kept since programs can set back the one (mtime) but not the other (ctime).
"""

import hashlib
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

READERS = min(8, os.cpu_count() or 1)
_DIGEST = re.compile("[0-9a-f]{64}")
_TABLE = "CREATE TABLE IF NOT EXISTS images (path BLOB PRIMARY KEY, stamp TEXT, digest TEXT) WITHOUT ROWID"
_WAIT_S = 5.0  # for another run that is writing
_WRITTEN_AT_ONCE = 256
# A file changed this short a time ago could change again without its times telling (they have the
# resolution of the file system, 2 s on FAT), so its digest is not remembered yet.
_SETTLED_NS = 2_500_000_000


class DigestIndex:
    """Remembers SHA-256 digests in a small database.

    It only saves time: a database that is damaged, locked or cannot be written is done without.

    Args:
        file: the database; it comes into being when there is something to remember.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def digests(self, paths: Sequence[Path]) -> list[str]:
        """SHA-256 of the bytes of each file; of a file that cannot be read, a text that is no digest."""
        keys = [os.fsencode(path.absolute()) for path in paths]
        stamps = [_stamp(path) for path in paths]
        digests = self._remembered(list(zip(keys, stamps, strict=True)))
        changed = [place for place, digest in enumerate(digests) if digest is None]
        batch: list[tuple[bytes, str, str]] = []
        began = time.time_ns()
        for place, digest in zip(changed, _read([paths[place] for place in changed]), strict=True):
            digests[place], stamp = digest, stamps[place]
            if stamp is not None and _settled(stamp, began) and _DIGEST.fullmatch(digest):
                batch.append((keys[place], stamp, digest))
            if len(batch) == _WRITTEN_AT_ONCE:
                self._remember(batch)
                batch = []
        self._remember(batch)
        return [digest or "" for digest in digests]

    def _remembered(self, files: Sequence[tuple[bytes, str | None]]) -> list[str | None]:
        nothing: list[str | None] = [None] * len(files)
        if not self.file.exists():
            return nothing
        try:
            with closing(sqlite3.connect(self.file, timeout=_WAIT_S)) as database:
                rows = [_look_up(database, key, stamp) for key, stamp in files]
        except sqlite3.OperationalError:  # locked, or not ours to read
            return nothing
        except sqlite3.DatabaseError:  # damaged
            self.file.unlink(missing_ok=True)
            return nothing
        return rows

    def _remember(self, rows: Sequence[tuple[bytes, str, str]]) -> None:
        if not rows:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=_WAIT_S)) as database, database:
                database.execute(_TABLE)
                database.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?)", rows)
        except (sqlite3.Error, OSError):
            return


def _look_up(database: sqlite3.Connection, key: bytes, stamp: str | None) -> str | None:
    row = database.execute("SELECT digest FROM images WHERE path = ? AND stamp = ?", (key, stamp)).fetchone()
    return str(row[0]) if row is not None and _DIGEST.fullmatch(str(row[0])) else None


def _stamp(path: Path) -> str | None:
    """Size, times and inode of a file; None if there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _settled(stamp: str, now_ns: int) -> bool:
    _, changed, status_changed, _ = map(int, stamp.split())
    return max(changed, status_changed) < now_ns - _SETTLED_NS


def _read(paths: Sequence[Path]) -> Iterator[str]:
    if not paths:
        return
    with ThreadPoolExecutor(READERS) as readers:
        try:
            digests = readers.map(_digest, paths)
            yield from tqdm(digests, "reading images", len(paths), unit="image", leave=False)
        except BaseException:
            readers.shutdown(cancel_futures=True)  # else all images would be read before the program ends
            raise


def _digest(path: Path) -> str:
    try:
        if not path.is_file():  # opening a named pipe would wait for its writer
            return f"unreadable:{path}"
        with path.open("rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except (OSError, ValueError):
        return f"unreadable:{path}"
