"""Features of images: what a frozen encoder made of them, computed once and kept on disk.

A store is a folder with two files: ``features.bin``, rows of float16 one behind the other, and ``index.txt``, one
line a row with the SHA-256 of the image's bytes. The folder is named after encoder, weights and preprocessing, so
features can never be taken for those of another model. Rows are on disk before their lines: whatever a crash leaves
behind the last whole line is cut off at the next start.

Digests are remembered by path beside the stores, so that unchanged files need not be read again. A file counts as
unchanged as long as its size, its times of change and its inode stay what they were. Both times are kept since
programs can set back the one (mtime) but not the other (ctime).
"""

import hashlib
import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from captioner import tars
from captioner.datasets.codes import Floats, open_vectors
from captioner.datasets.records import Record
from captioner.errors import CacheError, ImageError, os_errors_as
from captioner.images import READING, Pixels, display_name
from captioner.runtime.model import ImageEncoder

READERS = min(8, os.cpu_count() or 1)
"""Threads that read images."""

_BATCH = 32
_LINE = re.compile(rb"[0-9a-f]{64}\n")
_LINE_BYTES = 65


@dataclass(frozen=True)
class FeatureRows:
    """Where the features of some images are.

    Attributes:
        array: memory-mapped float16 or float32 ``(rows, regions, channels)``.
        rows: for each image asked for, its row; -1 for a broken image.
        digests: for each image asked for, the SHA-256 of its bytes; empty if it cannot be read.
        broken: why images are broken, by their position among those asked for.
    """

    array: Floats
    rows: np.typing.NDArray[np.int64]
    digests: Sequence[str]
    broken: Mapping[int, str]

    def fetch(self, images: Sequence[int]) -> np.typing.NDArray[np.float32]:
        """Features of whole images, by their position among those asked for.

        Returns:
            float32 ``(images, regions, channels)``.
        """
        return self.array[self.rows[list(images)]].astype(np.float32)


@contextmanager
def readers() -> Iterator[ThreadPoolExecutor]:
    """Threads that read images; after a failure or Ctrl-C those that were not begun are not read."""
    with ThreadPoolExecutor(READERS) as threads:
        try:
            yield threads
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


class FeatureStore:
    """Features of one encoder with one preprocessing.

    Args:
        folder: cache folder; the store gets a sub-folder of its own.
        encoder: what encodes.
        pooled: keep only the mean over regions, which is all that a decoder without attention needs.

    Attributes:
        shape: ``(regions, channels)`` of an image's features.
        name: tells features of this store from those of another, beside the digests of the images.
    """

    def __init__(self, folder: str | Path, encoder: ImageEncoder, *, pooled: bool) -> None:
        regions, channels = encoder.shape
        self.encoder, self.pooled = encoder, pooled
        self.shape = (1 if pooled else regions, channels)
        self._row_bytes = 2 * self.shape[0] * self.shape[1]
        facts = json.dumps([READING, encoder.encoder_digest, encoder.preprocessing.to_dict(), pooled, encoder.numbers])
        key = hashlib.sha256(facts.encode()).hexdigest()[:16]
        self.folder = Path(folder).expanduser() / "features" / f"{encoder.encoder_name}-{key}"
        self.data, self.index = self.folder / "features.bin", self.folder / "index.txt"
        self.digests = DigestIndex(Path(folder).expanduser() / "features" / "digests.sqlite")
        self.name = self.folder.name

    def features_of(self, records: Sequence[Record]) -> FeatureRows:
        """Features of the images of records; see :meth:`collect`."""
        return self.collect([record.path for record in records])

    def collect(self, paths: Sequence[Path]) -> FeatureRows:
        """Features of images; those that are not in the store yet are encoded, with a progress bar.

        Raises:
            CacheError: the store cannot be written, for instance because the disk is full.
        """
        with os_errors_as(
            CacheError,
            f"cannot keep features in {self.folder}: ",
            advice="free some space, or choose another folder with `cache`",
        ):
            digests = self.digests.digests(paths)
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / "lock"):
                known = self._repair()
                reasons = self._encode_missing(dict(zip(digests, paths, strict=True)), known)
                rows = np.array([known.get(digest, -1) for digest in digests], dtype=np.int64)
                # An empty file cannot be mapped.
                count = self.data.stat().st_size // self._row_bytes
                array: np.typing.NDArray[np.float16] = np.empty((0, *self.shape), np.float16)
                if count:
                    array = np.memmap(self.data, np.float16, "r", shape=(count, *self.shape))
        broken = {
            place: f"{display_name(paths[place])}: {reasons[digest]}"
            for place, digest in enumerate(digests)
            if digest in reasons
        }
        readable = [digest if _DIGEST.fullmatch(digest) else "" for digest in digests]
        return FeatureRows(array, rows, readable, broken)

    def _repair(self) -> dict[str, int]:
        """Read the index, cutting off what a crash left unfinished: digest -> row."""
        self.data.touch()
        self.index.touch()
        whole_rows = self.data.stat().st_size // self._row_bytes
        known: dict[str, int] = {}
        count = 0
        with self.index.open("rb") as file:
            for line in file:
                if not _LINE.fullmatch(line) or count == whole_rows:
                    break
                known.setdefault(line.decode().strip(), count)
                count += 1
        os.truncate(self.index, count * _LINE_BYTES)
        os.truncate(self.data, count * self._row_bytes)
        return known

    def _encode_missing(self, images: Mapping[str, Path], known: dict[str, int]) -> dict[str, str]:
        """Encode images whose digest is not known and add them to it; returns why others are broken."""
        missing = {digest: path for digest, path in images.items() if digest not in known}
        broken: dict[str, str] = {}
        if not missing:
            return broken
        count = self.data.stat().st_size // self._row_bytes
        progress = tqdm(total=len(missing), desc="encoding images", unit="image")
        with self.data.open("ab") as data, self.index.open("a") as index, progress:
            for batch in self._batches(list(missing.items())):
                good = {digest: pixels for digest, pixels in batch.items() if not isinstance(pixels, str)}
                broken |= {digest: reason for digest, reason in batch.items() if isinstance(reason, str)}
                if good:
                    data.write(self._encode(list(good.values())).tobytes())
                    data.flush()
                    os.fsync(data.fileno())  # a power cut must not leave lines without their rows
                index.writelines(f"{digest}\n" for digest in good)
                index.flush()
                known |= {digest: count + place for place, digest in enumerate(good)}
                count += len(good)
                progress.update(len(batch))
        return broken

    def _batches(self, missing: Sequence[tuple[str, Path]]) -> Iterator[dict[str, "Pixels | str"]]:
        """Pixels by digest, or why there are none; one batch is read while the one before is encoded."""
        with ThreadPoolExecutor(READERS) as threads:
            following = {digest: threads.submit(self._load, path) for digest, path in missing[:_BATCH]}
            for start in range(_BATCH, len(missing) + _BATCH, _BATCH):
                batch = following
                part = missing[start : start + _BATCH]
                following = {digest: threads.submit(self._load, path) for digest, path in part}
                yield {digest: pixels.result() for digest, pixels in batch.items()}

    def _load(self, path: Path) -> "Pixels | str":
        try:
            return self.encoder.preprocessing.load(path)
        except ImageError as error:
            return str(error).removeprefix(f"{display_name(path)}: ")

    def _encode(self, pixels: Sequence[Pixels]) -> np.typing.NDArray[np.float16]:
        regions = self.encoder.encode(pixels)
        if self.pooled:
            regions = regions.mean(axis=1, keepdims=True)
        # Beyond float16 lies nothing useful, but infinity would poison training.
        return regions.clip(-65504, 65504).astype(np.float16)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two runs do not fill one store at the same time."""
    with path.open("w") as file:
        try:
            import fcntl
        except ImportError:  # Windows: one run at a time is the user's business
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run that encodes images into {path.parent}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class VectorStore:
    """The vectors of one file, which stay where they are.

    Args:
        path: see :func:`captioner.datasets.codes.open_vectors`.

    Attributes:
        shape: ``(regions, channels)`` of a vector.
        name: tells these vectors from those of another store, beside their digests.

    Raises:
        DatasetError: the file is absent, damaged, or holds no vectors.
    """

    def __init__(self, path: Path) -> None:
        self.vectors = open_vectors(path)
        _, regions, channels = self.vectors.array.shape
        self.shape = (regions, channels)
        self.name = f"vectors-{regions}x{channels}"

    def features_of(self, records: Sequence[Record]) -> FeatureRows:
        """The vectors of records of this file; each is read once and looked at.

        Equal vectors get one row, as equal images do: they stand for the same image.
        """
        wanted = {record.row for record in records}
        digests: dict[int, str] = {}
        problems: dict[int, str] = {}
        with tqdm(total=len(self.vectors), desc="reading vectors", unit="vector", leave=False) as progress:
            for numbers, block in self.vectors.blocks():
                problems |= self.vectors.problems(numbers, block)
                for row, vector in zip(numbers, block, strict=True):
                    if row in wanted and row not in problems:
                        digests[row] = hashlib.sha256(vector.tobytes()).hexdigest()
                progress.update(len(block))
        first: dict[str, int] = {}
        for row, digest in digests.items():
            first.setdefault(digest, row)
        rows = [record.row if record.row is not None else -1 for record in records]
        return FeatureRows(
            array=self.vectors.array,
            rows=np.array([first[digests[row]] if row in digests else -1 for row in rows], dtype=np.int64),
            digests=[digests.get(row, "") for row in rows],
            broken={place: problems[row] for place, row in enumerate(rows) if row in problems},
        )


_DIGEST = re.compile("[0-9a-f]{64}")
_TABLE = "CREATE TABLE IF NOT EXISTS photos (path BLOB PRIMARY KEY, stamp TEXT, digest TEXT) WITHOUT ROWID"
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
        if self.file.exists():
            try:
                with closing(sqlite3.connect(self.file, timeout=_WAIT_S)) as database:
                    return [_look_up(database, key, stamp) for key, stamp in files]
            except sqlite3.OperationalError:  # locked, or not ours to read
                pass
            except sqlite3.DatabaseError:  # damaged
                self.file.unlink(missing_ok=True)
        return [None] * len(files)

    def _remember(self, rows: Sequence[tuple[bytes, str, str]]) -> None:
        if not rows:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=_WAIT_S)) as database, database:
                database.execute(_TABLE)
                database.executemany("INSERT OR REPLACE INTO photos VALUES (?, ?, ?)", rows)
        except (sqlite3.Error, OSError):
            return


def _look_up(database: sqlite3.Connection, key: bytes, stamp: str | None) -> str | None:
    row = database.execute("SELECT digest FROM photos WHERE path = ? AND stamp = ?", (key, stamp)).fetchone()
    return str(row[0]) if row is not None and _DIGEST.fullmatch(str(row[0])) else None


def _stamp(path: Path) -> str | None:
    """Size, times and inode of a file; None if there is none."""
    try:
        status = tars.file_of(path).stat()
    except (OSError, ValueError):
        return None
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _settled(stamp: str, now_ns: int) -> bool:
    _, changed, status_changed, _ = map(int, stamp.split())
    return max(changed, status_changed) < now_ns - _SETTLED_NS


def _read(paths: Sequence[Path]) -> Iterator[str]:
    if not paths:
        return
    with readers() as threads:
        yield from tqdm(threads.map(_digest, paths), "reading images", len(paths), unit="image", leave=False)


def _digest(path: Path) -> str:
    try:
        if not tars.is_file(path):  # opening a named pipe would wait for its writer
            return f"unreadable:{path}"
        with tars.open_file(path) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except (OSError, ValueError):
        return f"unreadable:{path}"
