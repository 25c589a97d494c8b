"""One file for everything a trained model needs: weights, architecture, words and preprocessing.

The file is in the safetensors format, which has no place for code: weights are tensors, all else is JSON in
the metadata, and nothing is unpickled. Nothing in this module trusts the file: shapes are compared with the
configuration before memory is taken for them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captioner.caption import Calibration
from captioner.decoding.options import DecodingOptions
from captioner.errors import CheckpointError, EncoderError, OptionError
from captioner.images import Preprocessing
from captioner.model.config import NO_ENCODER
from captioner.model.decoder import decoder_blueprint
from captioner.model.encoder import CLASSES, CaptionNetwork, Encoder, classifier_of, encoder_preprocessing, output_shape
from captioner.vocabulary import Vocabulary
from captioner.weights import INT8, Header, check_values, file_digest, header_of, open_checkpoint

_MOST_PROBED = 640  # px a side; networks that take one size only take a smaller one
_FLOATS = {"F64", "F32", "F16", "BF16"}
ENCODER, DECODER, CLASSIFIER = "encoder.", "decoder.", "classifier."
TIED = "decoder.output.weight"  # the same tensor as the embedding, stored once


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and what belongs to it.

    Attributes:
        network: the network, in evaluation mode.
        vocabulary: its words.
        preprocessing: what its encoder expects.
        decoding: decoding options that suit it best.
        training: how it came about (data, figures, date, versions), as plain values for JSON.
        digest: first 16 hexadecimal digits of the file's SHA-256; empty if it has no file yet.
        calibration: how sure its captions are; None if not calibrated.
        classifier: logits of ImageNet's classes from the mean region, or None.
        graphs: what ONNX Runtime computes in place of torch, see :mod:`captioner.runtime.graph`, or None. They
            belong to one architecture and preprocessing: what has another needs others.
    """

    network: CaptionNetwork
    vocabulary: Vocabulary
    preprocessing: Preprocessing
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    training: Mapping[str, object] = field(default_factory=dict)
    digest: str = ""
    calibration: Calibration | None = None
    classifier: nn.Linear | None = None
    graphs: str | None = None


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: the file is absent, truncated, corrupt, foreign, of a newer format, or does not
            fit its own configuration.
        EncoderError: the encoder was left out of the file and its weights are not available.
    """
    path = Path(path)
    with open_checkpoint(path, "pt") as file:
        header = header_of(path, file)
        network = network_of(path, header, pretrained=not header.embedded)
        targets = network.state_dict()  # these share their memory with the network
        others = {}
        for key in (key for key in header.shapes if not key.startswith(INT8)):
            value = file.get_tensor(key)
            check_values(path, key, as_array(value))
            if key not in targets:
                others[key.removeprefix(CLASSIFIER)] = value
            elif value.is_floating_point():  # counters and index tables come with the network
                targets[key].copy_(value)
    if not header.embedded and encoder_digest(network.encoder) != header.encoder_digest:
        raise CheckpointError(f"{path}: trained with other weights of {header.config.encoder} than the installed ones")
    return Checkpoint(
        network=network.eval(),
        vocabulary=header.vocabulary,
        preprocessing=header.preprocessing,
        decoding=header.decoding,
        training=header.training,
        digest=file_digest(path),
        calibration=header.calibration,
        classifier=classifier_of(**others) if others else None,
        graphs=header.graphs,
    )


def with_encoder(
    checkpoint: Checkpoint, name: str, *, image_size: int | None = None, resize: str | None = None
) -> Checkpoint:
    """Give an encoder to a model that was trained on vectors, so that it captions images too.

    Args:
        checkpoint: a model without encoder; it is not changed.
        name: the encoder that made the vectors, see :func:`captioner.model.encoder.encoder_names`.
        image_size: side of the image that it saw; by default the one of its pretrained weights.
        resize: how it saw images, ``squash`` (default) or ``crop``.

    Raises:
        OptionError: the model has an encoder already, or the image size is impossible.
        EncoderError: the encoder is unknown, its weights are not available, or it gives other vectors.
    """
    config = checkpoint.network.config
    if config.encoder != NO_ENCODER:
        raise OptionError(f"`encoder` {name}: the checkpoint carries its own encoder, {config.encoder}", "leave it out")
    if image_size is not None and image_size < 1:
        raise OptionError(f"`image_size` must be at least 1, not {image_size}")
    preprocessing = encoder_preprocessing(name, image_size=image_size, resize=resize or "squash")
    network = CaptionNetwork(replace(config, encoder=name, image_size=preprocessing.size), pretrained=True)
    _, channels = output_shape(network.encoder, preprocessing.size)
    if channels != config.channels:
        raise EncoderError(
            f"`encoder` {name}: gives vectors of {channels} features, the checkpoint was trained on {config.channels}",
            "another encoder made those",
        )
    network.decoder = checkpoint.network.decoder
    # The file's digest alone would not say which encoder it sees with.
    digest = f"{checkpoint.digest}+{name}-{preprocessing.size}-{preprocessing.resize}"
    return replace(checkpoint, network=network.eval(), preprocessing=preprocessing, digest=digest, graphs=None)


def encoder_digest(encoder: Encoder) -> str:
    """Make a fingerprint of an encoder's weights (as float16, so that storage does not change it)."""
    digest = hashlib.sha256()
    for key, value in sorted(encoder.state_dict().items()):
        digest.update(key.encode())
        digest.update(stored(value, torch.float16).float().numpy().tobytes())
    return digest.hexdigest()[:16]


def as_array(value: Tensor) -> np.typing.NDArray[Any]:
    """Give a tensor to numpy, which has no bfloat16."""
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a weight to a type, unless that cannot hold it; on the CPU."""
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point():
        return value
    smaller = value.to(dtype)
    return smaller if smaller.isfinite().all() else value


def network_of(path: Path, header: Header, *, pretrained: bool) -> CaptionNetwork:
    """Build the network of a header, and check that the tensors of its file fit.

    Raises:
        CheckpointError: they do not fit the configuration.
        EncoderError: the encoder is unknown, or its weights are not available.
    """
    config = header.config
    # The decoder's sizes are free, so they are compared before memory is taken; an encoder has its name's.
    _check_tensors(path, header, DECODER, decoder_blueprint(config))
    try:
        network = CaptionNetwork(config, pretrained=pretrained)
    except EncoderError as error:
        raise EncoderError(f"{path}: {error}") from error
    if header.embedded:
        _check_tensors(path, header, ENCODER, network.encoder)
    if any(key.startswith(CLASSIFIER) for key in header.shapes):
        _check_tensors(path, header, CLASSIFIER, nn.Linear(config.channels, CLASSES, device="meta"))
    known = (DECODER, CLASSIFIER, INT8, *([ENCODER] if header.embedded else []))
    if foreign := [key for key in header.shapes if not key.startswith(known)]:
        raise CheckpointError(f"{path}: holds {foreign[0][:80]!r}, which is not part of its model")
    if config.encoder == NO_ENCODER:
        return network
    _, channels = output_shape(network.encoder, min(config.image_size, _MOST_PROBED))
    if channels != config.channels:
        raise CheckpointError(f"{path}: decoder takes {config.channels} channels, {config.encoder} gives {channels}")
    return network


def _check_tensors(path: Path, header: Header, prefix: str, module: nn.Module) -> None:
    expected = {prefix + key: value for key, value in module.state_dict().items()}
    if header.config.tie_embeddings:
        expected.pop(TIED, None)
    odd = sorted(expected.keys() ^ {key for key in header.shapes if key.startswith(prefix)})
    if odd:
        raise CheckpointError(f"{path}: {len(odd)} tensors are absent or superfluous, such as {odd[0][:80]!r}")
    for key, value in expected.items():
        if header.shapes[key] != tuple(value.shape):
            raise CheckpointError(
                f"{path}: {key} has shape {header.shapes[key]}, its configuration says {tuple(value.shape)}"
            )
        if (header.dtypes[key] in _FLOATS) != value.is_floating_point():
            raise CheckpointError(f"{path}: {key} holds numbers of the wrong type, {header.dtypes[key]}")
