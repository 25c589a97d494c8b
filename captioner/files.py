"""Writing files so that a crash never leaves half of one behind."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from captioner.errors import CaptionerError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives the name of a file to write instead of ``path``; it takes the place of ``path`` at the end.

    After a failure, Ctrl-C included, ``path`` is as it was and nothing else is left.

    Raises:
        OSError: the file cannot be put in place.
    """
    path = Path(path)
    # in the same folder, because only within one file system is the replacement a single step
    temporary = path.with_name(f".captioner-{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name with no content
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Writes a file whole or not at all, replacing one that is there.

    Args:
        path: where the file goes; its folder must exist.
        content: bytes, or text that is written as UTF-8.

    Raises:
        CaptionerError: the folder is absent or cannot be written to, or the disk is full.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise CaptionerError(f"cannot write {path}: {error.strerror or error}") from error
