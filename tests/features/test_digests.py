from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from captioner import features as module
from captioner.features import DigestIndex


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "files").mkdir()
    paths = [tmp_path / "files" / f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100)
    return paths


@pytest.fixture
def index(tmp_path: Path) -> DigestIndex:
    return DigestIndex(tmp_path / "cache" / "digests.sqlite")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read; also, files count as settled at once."""
    seen: list[Path] = []
    digest = module._digest

    def reading(path: Path) -> str:
        seen.append(path)
        return digest(path)

    monkeypatch.setattr(module, "_digest", reading)
    monkeypatch.setattr(module, "_SETTLED_NS", -(10**12))
    return seen


def _expected(paths: list[Path]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_files_that_have_not_changed_are_not_read_again(
    files: list[Path], index: DigestIndex, read: list[Path]
) -> None:
    assert index.digests(files[:3]) == _expected(files[:3])
    assert sorted(read) == files[:3]
    assert DigestIndex(index.file).digests(files) == _expected(files)
    assert sorted(read) == files


def test_a_relative_path_is_the_same_file(
    files: list[Path], index: DigestIndex, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    index.digests(files)
    monkeypatch.chdir(files[0].parent)
    assert index.digests([Path(path.name) for path in files]) == _expected(files)
    assert len(read) == len(files)


def test_changed_files_are_read_again_even_if_their_time_is_set_back(
    files: list[Path], index: DigestIndex, read: list[Path]
) -> None:
    index.digests(files)
    read.clear()
    before = files[1].stat()
    time.sleep(0.02)  # longer than a tick of the file system's clock
    files[0].write_bytes(b"longer than it was before" * 9)
    files[1].write_bytes(b"x" * 100)
    os.utime(files[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    files[2].unlink()
    files[3].replace(files[2])
    files[3].write_bytes(b"y" * 100)
    assert index.digests(files) == _expected(files)
    assert sorted(read) == files[:4]


def test_files_that_have_just_changed_are_not_remembered(
    files: list[Path], index: DigestIndex, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETTLED_NS", 10**12)
    index.digests(files)
    assert index.digests(files) == _expected(files)
    assert len(read) == 2 * len(files)


def test_what_cannot_be_read_has_no_digest(tmp_path: Path, files: list[Path], index: DigestIndex) -> None:
    pipe, link = tmp_path / "pipe.jpg", tmp_path / "link.jpg"
    os.mkfifo(pipe)
    link.symlink_to("nowhere")
    odd = [tmp_path / "absent.jpg", tmp_path, pipe, link, Path("null\0.jpg")]
    found = index.digests([*odd, files[0]])
    assert all(digest.startswith("unreadable:") for digest in found[:-1])
    assert found[-1:] == _expected(files[:1])


def test_names_that_are_no_text(tmp_path: Path, index: DigestIndex, read: list[Path]) -> None:
    names = [tmp_path / os.fsdecode(name) for name in (b"\xff.jpg", b"a\nb'\".jpg", "\N{DOG FACE}.jpg".encode())]
    for name in names:
        name.write_text(repr(name))
    for _ in range(2):
        assert index.digests(names) == _expected(names)
    assert len(read) == len(names)


@pytest.mark.parametrize("damage", ["garbage", "empty", "torn", "another table", "foreign digests", "folder"])
def test_a_damaged_index_is_done_without(damage: str, files: list[Path], index: DigestIndex, read: list[Path]) -> None:
    index.digests(files)
    content = index.file.read_bytes()
    match damage:
        case "garbage":
            index.file.write_bytes(b"no database" * 1000)
        case "empty":
            index.file.write_bytes(b"")
        case "torn":
            index.file.write_bytes(content[: len(content) // 2])
        case "folder":
            index.file.unlink()
            index.file.mkdir()
        case _:
            with closing(sqlite3.connect(index.file)) as database, database:
                if damage == "another table":
                    database.execute("DROP TABLE photos")
                    database.execute("CREATE TABLE images (name TEXT)")
                else:
                    database.execute("UPDATE photos SET digest = x'00ff'")
    for _ in range(3):
        assert index.digests(files) == _expected(files)
    repaired = damage not in ("another table", "folder")
    assert len(read) <= (4 if not repaired else 3) * len(files)


def test_a_locked_index_is_done_without(
    files: list[Path], index: DigestIndex, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 0.01)
    index.digests(files)
    with closing(sqlite3.connect(index.file)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert index.digests(files) == _expected(files)
    assert index.digests(files) == _expected(files)
    assert len(read) == 2 * len(files)


def test_a_place_that_cannot_be_written_to_is_done_without(tmp_path: Path, files: list[Path]) -> None:
    (tmp_path / "file").write_text("no folder")
    assert DigestIndex(tmp_path / "file" / "digests.sqlite").digests(files) == _expected(files)


def test_ctrl_c_does_not_wait_until_all_images_are_read(
    files: list[Path], index: DigestIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def reading(path: Path) -> str:
        read.append(path)
        time.sleep(0.002)
        return "0" * 64

    def interrupted(digests: Iterator[str], *_: object, **__: object) -> Iterator[str]:
        yield next(digests)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_digest", reading)
    monkeypatch.setattr(module, "tqdm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index.digests(files * 700)
    assert len(read) < 3000


_KILLED = """
import os, signal, sys
from pathlib import Path
from captioner import features as module

file, *paths = map(Path, sys.argv[1:])
digest = module._digest

def killing(path):
    if path == paths[-1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return digest(path)

module._digest, module._SETTLED_NS, module._WRITTEN_AT_ONCE, module.READERS = killing, -(10**12), 2, 1
module.DigestIndex(file).digests(paths)
"""


def test_kill_9_loses_little(files: list[Path], index: DigestIndex, read: list[Path]) -> None:
    assert index.digests(files[:1]) == _expected(files[:1])
    read.clear()
    killed = subprocess.run([sys.executable, "-c", _KILLED, index.file, *files], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert index.digests(files) == _expected(files)
    assert files[0] not in read
    assert files[-1] in read
