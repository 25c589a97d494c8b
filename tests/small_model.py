"""A model with a real encoder that runs in milliseconds. Its captions are nonsense that the image sways."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch

from captioner.captioner import Captioner
from captioner.checkpoint import Checkpoint
from captioner.decoding.options import DecodingOptions
from captioner.images import Preprocessing
from captioner.model.config import ModelConfig
from captioner.model.encoder import CaptionNetwork, encoder_preprocessing
from captioner.runtime.torch import TorchModel
from captioner.vocabulary import SPECIAL_WORDS, Vocabulary

WORDS = (
    "a the man dog runs on in grass red ball with and two is n't 's girl boy water beach tree sits stands "
    "near of by small large bird cat"
)
SIZE = 64


def in_double(captioner: Captioner) -> Captioner:
    """A copy that computes in float64, for tests with the fixture ``double``."""
    twin = copy.deepcopy(captioner)
    for model in getattr(twin.model, "members", [twin.model]):
        assert isinstance(model, TorchModel)
        model.__dict__.pop("network", None)  # made of the encoder when first asked for, and so in float32
        model.dtype = torch.float64
        model._given.double()
        model.decoder.double()
    twin._regions = lambda vectors: vectors  # type: ignore[method-assign]
    return twin


def small_preprocessing() -> Preprocessing:
    return encoder_preprocessing("efficientnet_lite0", image_size=SIZE)


def small_checkpoint(
    *,
    cell: str = "lstm",
    attention: str = "none",
    attributes: int = 0,
    tie_embeddings: bool = True,
    training: dict[str, object] | None = None,
) -> Checkpoint:
    """A seeded decoder on the pretrained ``efficientnet_lite0`` for images of 64 px."""
    vocabulary = Vocabulary(SPECIAL_WORDS + tuple(WORDS.split()))
    config = ModelConfig(
        encoder="efficientnet_lite0",
        image_size=SIZE,
        channels=1280,
        vocabulary_size=len(vocabulary),
        cell=cell,
        hidden_size=24,
        embedding_size=16,
        attention=attention,
        attention_size=8,
        attributes=attributes,
        tie_embeddings=tie_embeddings,
    )
    torch.manual_seed(0)
    network = CaptionNetwork(config, pretrained=True)
    with torch.no_grad():
        # Freshly initialised decoders say much the same of every image.
        for parameter in network.decoder.parameters():
            if parameter.dim() > 1:
                parameter *= 4
    decoding = DecodingOptions(min_length=4, max_length=8)
    return Checkpoint(network.eval(), vocabulary, small_preprocessing(), decoding, training or {})


def with_size(model: Checkpoint, size: int) -> Checkpoint:
    """The same decoder with images of another size."""
    network = CaptionNetwork(replace(model.network.config, image_size=size), pretrained=True)
    network.decoder = model.network.decoder
    preprocessing = encoder_preprocessing("efficientnet_lite0", image_size=size)
    return replace(model, network=network.eval(), preprocessing=preprocessing)


def save_with_graphs(path: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint that ONNX Runtime can compute."""
    from captioner.runtime.export import graphs_of
    from captioner.saving import save_checkpoint

    save_checkpoint(path, replace(checkpoint, graphs=graphs_of(checkpoint, print)))
    return path
