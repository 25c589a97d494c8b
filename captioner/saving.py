"""Writing checkpoints."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save

from captioner.checkpoint import CLASSIFIER, ENCODER, TIED, Checkpoint, as_array, encoder_digest, stored
from captioner.errors import CaptionerError, CheckpointError, os_errors_as
from captioner.files import write_atomically
from captioner.runtime.graph import read_graphs
from captioner.weights import FORMAT, FORMAT_VERSION, check_values


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
        checkpoint: what to write. Graphs that do not fit the architecture or the tensors are left out.
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
            check_values(path, key, as_array(value))
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
    if checkpoint.graphs is not None:
        with suppress(CheckpointError):
            read_graphs(checkpoint.graphs, network.config, tensors)
            metadata["graphs"] = checkpoint.graphs
    with os_errors_as(CheckpointError, f"cannot write the checkpoint {path}: "):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(path, save(tensors, metadata))
        except CaptionerError as error:
            raise CheckpointError(str(error)) from error
