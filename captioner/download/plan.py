"""What is still to be fetched for a collection, and doing it: nothing outside the folder, nothing by halves."""

import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from captioner.download.catalog import Archive, Collection
from captioner.download.fetch import Patience, Progress, disk_errors, fetch, free_space, readable_size, size_on_disk
from captioner.errors import DatasetError

_WORK_FOLDER = ".captioner-download"
_BLOCK = 1 << 20  # bytes unpacked at once
_USUAL = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Plan:
    """The archives of a collection whose pieces do not all lie in the folder yet."""

    collection: Collection
    folder: Path
    archives: tuple[Archive, ...]

    def zip_file(self, archive: Archive) -> Path:
        """Where the zip file of an archive lies until it is unpacked; on the folder's own file system."""
        return self.folder / _WORK_FOLDER / archive.name

    def to_fetch(self, archive: Archive) -> int:
        """Bytes of an archive that are still to be fetched."""
        return max(0, archive.size - size_on_disk(self.zip_file(archive)))

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes still to be fetched, all archives together."""
        return sum(self.to_fetch(archive) for archive in self.archives)

    @property
    def bytes_needed(self) -> int:
        """Bytes of disk needed at the worst moment; a zip file goes as soon as it is unpacked."""
        worst = kept = 0
        for archive in self.archives:
            worst = max(worst, kept + self.to_fetch(archive) + archive.unpacked)
            kept += archive.unpacked
        return worst


def make_plan(collection: Collection, folder: Path, split: str) -> Plan:
    """Look at what lies in the folder already.

    Raises:
        OptionError: for a split that cannot be fetched by itself.
        DatasetError: when the folder is a file, or the disk cannot hold what is still to come.
    """
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"{folder}: is a file", "give a folder with `to`")
    missing = tuple(
        archive
        for archive in collection.of_split(split)
        if not all(piece.is_complete(folder) for piece in archive.pieces)
    )
    plan = Plan(collection, folder, missing)
    free = free_space(folder)
    if free < plan.bytes_needed:
        raise DatasetError(
            f"{folder}: {readable_size(plan.bytes_needed)} are needed to fetch and unpack {collection.name}, "
            f"{readable_size(free)} are free",
            "make room or choose another folder",
        )
    return plan


def describe(plan: Plan) -> str:
    """Say in some lines what a plan fetches, under which licence, and what room it takes."""
    lines = [f"{plan.collection.name}: {plan.collection.title}"]
    lines += [f"  {readable_size(plan.to_fetch(archive)):>9}  {archive.address}" for archive in plan.archives]
    lines.append(f"licence: {plan.collection.licence}")
    lines.append(
        f"into {plan.folder}: {readable_size(plan.bytes_to_fetch)} to fetch, at most "
        f"{readable_size(plan.bytes_needed)} of disk needed, {readable_size(free_space(plan.folder))} free"
    )
    return "\n".join(lines)


def carry_out(plan: Plan, patience: Patience, progress: Progress) -> None:
    """Fetch, check and unpack every archive of a plan, one after the other.

    What was fetched stays when something fails, and the next plan goes on from there.

    Raises:
        DatasetError: for anything wrong with the connection, an archive or the disk.
    """
    work = plan.folder / _WORK_FOLDER
    with disk_errors(plan.folder):
        work.mkdir(parents=True, exist_ok=True)
    for archive in plan.archives:
        file = plan.zip_file(archive)
        fetch(archive.address, file, archive.size, patience, progress)
        unpack(file, archive, plan.folder, progress)
        with disk_errors(file):
            file.unlink()
    with suppress(OSError):
        work.rmdir()  # It stays when it holds part of something else.


def unpack(file: Path, archive: Archive, folder: Path, progress: Progress) -> None:
    """Put the pieces of a zip file into a folder; each file there is whole at every moment.

    Everything is first unpacked beside the zip file, which checks each member's CRC-32, and then moved.

    Args:
        file: the zip file; deleted if it turns out to be broken, so that the next run fetches it again.
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
    """Unpack into ``staging`` and return the names of the files there; delete a broken archive."""
    try:
        with _opened(file) as contents:
            members = _checked_members(contents, archive)
            _extract(contents, members, staging, f"unpacking {archive.name}", progress)
        if lacking := [piece.path for piece in archive.pieces if not piece.is_complete(staging)]:
            raise zipfile.BadZipFile(f"it lacks {', '.join(lacking)}, in whole or in part")
    except _BROKEN as error:
        file.unlink()
        raise DatasetError(
            f"{file}: broken or unsafe archive, {error}",
            "it has been deleted, give the same command again to fetch it again",
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
