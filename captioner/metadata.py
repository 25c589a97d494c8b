"""What a checkpoint says of itself: told to a person, and written anew; without torch where there is none."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from captioner.files import write_atomically
from captioner.model.config import NO_ENCODER
from captioner.weights import FORMAT, FORMAT_VERSION, Header, end_of_header, file_digest, read_header

_ALIGNMENT = 8  # of the tensors, by the safetensors format


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
    end = end_of_header(content)
    header = json.loads(content[8:end])
    metadata = header["__metadata__"] | entries
    header["__metadata__"] = {key: value for key, value in metadata.items() if value is not None}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    write_atomically(output, len(text).to_bytes(8, "little") + text + content[end:])


def describe(path: str | Path) -> dict[str, object]:
    """Describe a checkpoint to a person, as plain values.

    Where torch is installed, its tensors are compared with its configuration, and an encoder has its stages named.

    Raises:
        CheckpointError: the file is absent, broken, foreign, or does not fit its own configuration.
        EncoderError: the encoder is unknown, or its weights are not available.
    """
    path = Path(path)
    header = read_header(path)
    blind = header.config.encoder == NO_ENCODER
    known = header.calibration
    encoder = "embedded" if header.embedded else f"external, digest {header.encoder_digest}"
    if blind:
        encoder = f"none; captions vectors of {header.config.channels} features, see docs/training.md"
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "digest": file_digest(path),
        "format": f"{FORMAT} {FORMAT_VERSION}",
        **_seen_by_torch(path, header),
        "stored as": ", ".join(sorted(set(header.dtypes.values()))),
        "encoder": encoder,
        "classifier": "ImageNet" if "classifier.weight" in header.shapes else "none",
        "int8": "quantised" if header.int8 else "none",
        "model": asdict(header.config),
        "preprocessing": "none" if blind else header.preprocessing.to_dict(),
        "vocabulary": f"{len(header.vocabulary)} words",
        "decoding": header.decoding.to_dict(),
        "confidence": "not calibrated" if known is None else {"meaning": known.meaning, **asdict(known)},
        "training": dict(header.training),
    }


def _seen_by_torch(path: Path, header: Header) -> dict[str, object]:
    """What the network itself says; without torch only what the file says of it."""
    try:
        from captioner.checkpoint import network_of
        from captioner.model.encoder import listed
    except ImportError:
        return {"parameters": header.parameters}
    network = network_of(path, header, pretrained=False)
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "encoder stages": "none" if header.config.encoder == NO_ENCODER else listed(network.encoder.stages),
    }
