"""Checkpoint files taken apart and put together again, to damage them in chosen ways."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from captioner.caption import Caption
from captioner.captioner import Captioner
from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.errors import CheckpointError

RUNNING_VAR = "encoder.backbone.network._bn0.running_var"
DECODER_BIAS = "decoder.output.bias"

# of the metadata
ENTRIES = ("config", "vocabulary", "preprocessing", "decoding", "training", "encoder")


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header: Mapping[str, Any] | bytes, tensors: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    return load(path.read_bytes())


def captions(checkpoint: Checkpoint, images: list[Path]) -> list[list[Caption]]:
    return Captioner(checkpoint, device="cpu", precision="fp32").caption(images)


def assert_refused(path: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
