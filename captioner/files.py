"""Writing files so that a crash never leaves half of one behind, and telling them apart."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from captioner.errors import CaptionerError


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Writes a file whole or not at all, replacing one that is there.

    After a failure, Ctrl-C included, the file is as it was and nothing else is left.

    Args:
        path: where the file goes; its folder must exist.
        content: bytes, or text that is written as UTF-8.

    Raises:
        CaptionerError: the folder is absent or cannot be written to, or the disk is full.
    """
    target = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    # in the same folder, because only within one file system is the replacement a single step
    temporary = target.parent / f".captioner-{secrets.token_hex(8)}.tmp"
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave the new name without content
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CaptionerError(f"cannot write {target}: {error.strerror or error}") from error


def file_digest(path: Path) -> str:
    """First 16 hexadecimal digits of a file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]
