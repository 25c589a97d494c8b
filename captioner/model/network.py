"""Encoder and decoder together."""

from __future__ import annotations

from torch import nn

from captioner.model.config import NO_ENCODER, ModelConfig
from captioner.model.decoder import Decoder
from captioner.model.encoder import Encoder, build_encoder
from captioner.model.no_encoder import NoEncoder


class CaptionNetwork(nn.Module):
    """A complete captioning network, as its configuration says; without encoder it takes vectors.

    Args:
        config: architecture.
        pretrained: start from ImageNet weights of the encoder instead of random ones.

    Raises:
        EncoderError: the encoder is unknown or its weights cannot be had.
    """

    def __init__(self, config: ModelConfig, *, pretrained: bool = False) -> None:
        super().__init__()
        self.config = config
        self.encoder: Encoder = NoEncoder()
        if config.encoder != NO_ENCODER:
            self.encoder = build_encoder(config.encoder, config.image_size, pretrained=pretrained)
        self.decoder = Decoder(config)
