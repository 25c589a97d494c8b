"""Disk space, and what goes wrong with disks, in plain words."""

from __future__ import annotations

import errno
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from captioner.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turns a failed write below ``place`` into one clear line.

    Raises:
        DatasetError: for a full disk, missing permission and every other ``OSError``.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DatasetError(f"{place}: the disk is full", "make room and give the same command again") from error
        raise DatasetError(f"{place}: cannot be written ({error.strerror or error})") from error


def free_space(folder: Path) -> int:
    """Bytes free where ``folder`` lies or will lie."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    with disk_errors(existing):
        return shutil.disk_usage(existing).free


def readable_size(size: int) -> str:
    """A size as people say it: decimal gigabytes, of small files megabytes."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
