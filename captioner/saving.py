"""Writing checkpoints, and saying what is in one."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save

from captioner.checkpoint import CLASSIFIER, ENCODER, TIED, Checkpoint, check_values, encoder_digest, network_of, stored
from captioner.errors import CaptionerError, CheckpointError, os_errors_as
from captioner.files import write_atomically
from captioner.model.config import NO_ENCODER
from captioner.model.encoder import listed
from captioner.weights import FORMAT, FORMAT_VERSION, peek, read_header

_ALIGNMENT = 8  # of the tensors, by the safetensors format


def save_checkpoint(
    path: str | Path,
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype = torch.float16,
    external_encoder: bool = False,
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: the file; one that is there is replaced.
        checkpoint: what to write.
        dtype: type of the stored weights; tensors that it cannot hold (overflow, integers) stay as they are.
        external_encoder: leave the encoder out and record its name and digest.

    Raises:
        CheckpointError: the file cannot be written, or a weight is not a number.
    """
    path, network = Path(path), checkpoint.network
    tensors, states = {}, network.state_dict()
    if checkpoint.classifier is not None:
        states.update(checkpoint.classifier.state_dict(prefix=CLASSIFIER))
    for key, value in states.items():
        tied = key == TIED and network.config.tie_embeddings
        external = external_encoder and key.startswith(ENCODER)
        if not (tied or external):
            check_values(path, key, value)
            tensors[key] = stored(value, dtype)
    metadata = {
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "config": json.dumps(asdict(network.config)),
        "vocabulary": json.dumps(checkpoint.vocabulary.words),
        "preprocessing": json.dumps(checkpoint.preprocessing.to_dict()),
        "decoding": json.dumps(checkpoint.decoding.to_dict()),
        "training": json.dumps(checkpoint.training, allow_nan=False),
        "encoder": json.dumps({"embedded": not external_encoder, "digest": encoder_digest(network.encoder)}),
    }
    if checkpoint.calibration is not None:
        metadata["confidence"] = json.dumps(asdict(checkpoint.calibration))
    with os_errors_as(CheckpointError, f"cannot write the checkpoint {path}: "):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(path, save(tensors, metadata))
        except CaptionerError as error:
            raise CheckpointError(str(error)) from error


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


def describe(path: str | Path) -> dict[str, object]:
    """Describe a checkpoint to a person, as plain values.

    Raises:
        CheckpointError: as :func:`load_checkpoint`.
    """
    path = Path(path)
    header = read_header(path)
    network = network_of(path, header, pretrained=False)
    blind = header.config.encoder == NO_ENCODER
    known = header.calibration
    encoder = "embedded" if header.embedded else f"external, digest {header.encoder_digest}"
    if blind:
        encoder = f"none; captions vectors of {header.config.channels} features, see docs/training.md"
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "digest": peek(path).digest,
        "format": f"{FORMAT} {FORMAT_VERSION}",
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "stored as": ", ".join(sorted(set(header.dtypes.values()))),
        "encoder": encoder,
        "classifier": "ImageNet" if f"{CLASSIFIER}weight" in header.shapes else "none",
        "encoder stages": "none" if blind else listed(network.encoder.stages),
        "model": asdict(header.config),
        "preprocessing": "none" if blind else header.preprocessing.to_dict(),
        "vocabulary": f"{len(header.vocabulary)} words",
        "decoding": header.decoding.to_dict(),
        "confidence": "not calibrated" if known is None else {"meaning": known.meaning, **asdict(known)},
        "training": dict(header.training),
    }
