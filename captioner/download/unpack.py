"""Unpacking a zip file from the network: nothing outside the folder, nothing by halves."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from captioner.download.disk import disk_errors, readable_size
from captioner.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from captioner.download.catalog import Archive
    from captioner.download.fetch import Progress

_BLOCK = 1 << 20  # bytes unpacked at once
_USUAL = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def unpack(file: Path, archive: Archive, folder: Path, progress: Progress) -> None:
    """Puts the pieces of a zip file into a folder; each file there is whole at every moment.

    Everything is first unpacked beside the zip file, which checks each member's CRC-32, and then moved.

    Args:
        file: the zip file; deleted if it turns out to be broken, so that the next run fetches it anew.
        archive: what the table says about it.
        folder: where the pieces go, on the same file system; other files there are left alone.
        progress: called after every member.

    Raises:
        DatasetError: for a broken or unsafe archive, one that lacks a piece or holds more than expected, and
            for a full disk.
    """
    staging = file.with_name(file.name + ".unpacked")
    with disk_errors(folder):
        shutil.rmtree(staging, ignore_errors=True)
        try:
            for name in _unpacked(file, archive, staging, progress):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (staging / name).replace(folder / name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _unpacked(file: Path, archive: Archive, staging: Path, progress: Progress) -> list[str]:
    """Unpacks into ``staging`` and returns the names of the files there; a broken archive is deleted."""
    try:
        with _opened(file) as contents:
            members = _checked_members(contents, archive)
            _extract(contents, members, staging, f"unpacking {archive.name}", progress)
        _check_complete(staging, archive)
    except _BROKEN as error:
        file.unlink()
        raise DatasetError(
            f"{file}: broken or unsafe archive, {error}",
            "it has been deleted, give the same command again to fetch it anew",
        ) from error
    return [member.filename for member in members]


def _opened(file: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except OSError as error:  # Follows a damaged offset to a place that no file has.
        raise zipfile.BadZipFile(str(error)) from error


def _checked_members(contents: zipfile.ZipFile, archive: Archive) -> list[zipfile.ZipInfo]:
    """The members to keep, after a look at all of them."""
    names: set[str] = set()
    kept = []
    for member in contents.infolist():
        _check_safe(member)
        if member.filename in names:
            raise zipfile.BadZipFile(f"{member.filename!r} is in it twice")
        names.add(member.filename)
        if not member.is_dir() and any(piece.covers(member.filename) for piece in archive.pieces):
            kept.append(member)
    total = sum(member.file_size for member in kept)
    if total > archive.unpacked:
        raise zipfile.BadZipFile(
            f"it would unpack to {readable_size(total)} where at most {readable_size(archive.unpacked)} are expected"
        )
    return kept


def _check_safe(member: zipfile.ZipInfo) -> None:
    if not member.filename:
        raise zipfile.BadZipFile("a file without a name is in it")
    path = PurePosixPath(member.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename:
        raise zipfile.BadZipFile(f"{member.filename!r} would lie outside the folder")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise zipfile.BadZipFile(f"{member.filename!r} is a link or a device")
    if member.compress_type not in _USUAL:
        raise zipfile.BadZipFile(f"{member.filename!r} is compressed in an unusual way")


def _check_complete(staging: Path, archive: Archive) -> None:
    lacking = [piece.path for piece in archive.pieces if not piece.is_complete(staging)]
    if lacking:
        raise zipfile.BadZipFile(f"it lacks {', '.join(lacking)}, in whole or in part")


def _extract(
    contents: zipfile.ZipFile, members: list[zipfile.ZipInfo], staging: Path, label: str, progress: Progress
) -> None:
    total, done = sum(member.file_size for member in members), 0
    for member in members:
        place = staging / member.filename
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as target:
            target.writelines(_blocks(contents, member))
        done += member.file_size
        progress(label, done, total)


def _blocks(contents: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """The contents of a member; stops at its declared size and compares the CRC-32 there."""
    try:
        with contents.open(member) as source:
            while block := source.read(_BLOCK):
                yield block
    except OSError as error:
        raise zipfile.BadZipFile(str(error)) from error
