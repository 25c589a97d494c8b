"""What is still to be fetched for a collection, and doing it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from captioner.download.disk import disk_errors, free_space, readable_size
from captioner.download.fetch import fetch, size_on_disk
from captioner.download.unpack import unpack
from captioner.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from captioner.download.catalog import Archive, Collection
    from captioner.download.fetch import Patience, Progress

_WORK_FOLDER = ".captioner-download"


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
    """Looks at what lies in the folder already.

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


def carry_out(plan: Plan, patience: Patience, progress: Progress) -> None:
    """Fetches, checks and unpacks every archive of a plan, one after the other.

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
        work.rmdir()  # Stays when it holds part of something else.
