"""Decoders that run in no time, and what they say of a text, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from captioner.model.config import ModelConfig
from captioner.model.decoder import Decoder
from captioner.runtime.torch import DecoderModel
from captioner.vocabulary import END, SPECIAL_WORDS, START, Vocabulary
from tests.small_model import WORDS

VOCABULARY = Vocabulary(SPECIAL_WORDS + tuple(WORDS.split()))
CHANNELS, REGIONS = 12, 5


def small_model(cell: str = "lstm", attention: str = "none") -> DecoderModel:
    """A seeded decoder whose words depend on the image; it computes in torch's default type."""
    config = ModelConfig(
        encoder="efficientnet_lite0",
        image_size=64,
        channels=CHANNELS,
        vocabulary_size=len(VOCABULARY),
        cell=cell,
        hidden_size=16,
        embedding_size=8,
        attention=attention,
        attention_size=8,
    )
    torch.manual_seed(3)
    decoder = Decoder(config).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return DecoderModel(decoder)


def images(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Region features: ``(count, REGIONS, CHANNELS)``."""
    return np.random.default_rng(seed).normal(size=(count, REGIONS, CHANNELS))


@torch.inference_mode()
def log_prob_by_steps(decoder: Decoder, regions: NDArray[np.float64], sentence: Sequence[int]) -> list[float]:
    """Log-probability of each word and of the end, for one image ``(regions, channels)``."""
    state = decoder.initial_state(torch.from_numpy(regions)[None])
    found = []
    for before, word in zip([START, *sentence], [*sentence, END], strict=True):
        logits, state = decoder.step(torch.tensor([before]), state)
        found.append(float(logits[0].double().log_softmax(dim=-1)[word]))
    return found
