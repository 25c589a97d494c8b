"""Where checkpoints lie, and what one says of itself, without loading torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from captioner.errors import CheckpointError
from captioner.files import write_atomically

DEFAULT_WEIGHTS = "captioner"
_ALIGNMENT = 8  # of the tensors, by the safetensors format
_MOST_HEADER_BYTES = 100 << 20  # what the safetensors format allows


def find_weights(weights: str | Path | None = None) -> Path:
    """Path of a checkpoint.

    Args:
        weights: the name of a shipped checkpoint, such as ``captioner``, or else a file; the shipped
            default if absent.

    Raises:
        CheckpointError: the default is wanted, but not installed.
    """
    name = DEFAULT_WEIGHTS if weights is None else str(weights)
    # In an installed package the weights lie inside it, in a clone beside it.
    package = Path(__file__).resolve().parent
    for folder in (package / "weights", package.parent / "weights"):
        shipped = {file.stem: file for file in folder.glob("*.safetensors")}
        if name in shipped:
            return shipped[name]
    if weights is None:
        raise CheckpointError("no weights are installed", "give a checkpoint with `weights` FILE")
    return Path(weights)


class Peek(NamedTuple):
    """What can be known of a checkpoint without loading the model.

    Attributes:
        metadata: what it says of itself, unchecked.
        digest: first 16 hexadecimal digits of the file's SHA-256.
    """

    metadata: dict[str, str]
    digest: str


def peek(path: Path) -> Peek:
    """Read and hash a checkpoint; once in a process, as long as the file stays the same.

    Raises:
        CheckpointError: the file cannot be read or is not in the safetensors format. Loading it
            (:func:`captioner.checkpoint.load_checkpoint`) tells more.
    """
    try:
        if not path.is_file():  # opening a named pipe would wait for its writer
            raise OSError("not a regular file")
        status = path.stat()
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return _peek(path, stamp)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({error})") from error


@lru_cache(maxsize=16)
def _peek(path: Path, _stamp: tuple[int, ...]) -> Peek:
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if length > _MOST_HEADER_BYTES:
            raise ValueError("header too long")
        header = file.read(length)
        metadata = {str(key): str(value) for key, value in json.loads(header)["__metadata__"].items()}
        digest = hashlib.sha256(start + header)
        while block := file.read(1 << 20):
            digest.update(block)
    return Peek(metadata, digest.hexdigest()[:16])


def write_metadata(path: Path, output: Path, entries: Mapping[str, str | None]) -> None:
    """Write a checkpoint again with other metadata and the same bytes of tensors, whole or not at all.

    Args:
        path: a checkpoint that can be loaded.
        output: the file to write, perhaps the same.
        entries: metadata to add, or to put in the place of those of the same name; None leaves them out.

    Raises:
        CaptionerError: the file cannot be written.
    """
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    metadata = header["__metadata__"] | entries
    header["__metadata__"] = {key: value for key, value in metadata.items() if value is not None}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    write_atomically(output, len(text).to_bytes(8, "little") + text + content[end:])
