"""Where checkpoints lie, and what one says of itself, without loading torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

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
        raise CheckpointError("no weights are installed; give a checkpoint with --weights FILE")
    return Path(weights)


def peek(path: Path) -> dict[str, str]:
    """Metadata of a checkpoint, unchecked: enough to compare two runs, not to load the model.

    Raises:
        CheckpointError: the file cannot be read or is not in the safetensors format. Loading it
            (:func:`captioner.checkpoint.load_checkpoint`) tells more.
    """
    try:
        if not path.is_file():  # opening a named pipe would wait for its writer
            raise OSError("not a regular file")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _MOST_HEADER_BYTES:
                raise ValueError("header too long")
            metadata = json.loads(file.read(length))["__metadata__"]
        return {str(key): str(value) for key, value in metadata.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({error})") from error


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
