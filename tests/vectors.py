"""Ready-made vectors without any encoder: fake course files, and a small model that takes vectors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

# Imported by the function that needs them, so that tests of what does without torch do without it.
if TYPE_CHECKING:
    from captioner.checkpoint import Checkpoint

KINDS = (("red", "ball"), ("blue", "dog"), ("green", "tree"), ("small", "bird"))


def fake_codes(count: int, channels: int = 12, regions: int | None = None, seed: int = 0) -> npt.NDArray[np.float32]:
    """One cloud of vectors for each of the kinds, in turn: ``(count, channels)`` or with regions."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(len(KINDS), channels))
    shape = (count, channels) if regions is None else (count, regions, channels)
    centre = centres[np.arange(count) % len(KINDS)]
    noise = 0.1 * chance.normal(size=shape)
    return ((centre if regions is None else centre[:, None]) + noise).astype(np.float32)


def fake_captions(count: int) -> list[list[str]]:
    """Two captions an image, in tokens."""
    kinds = [KINDS[row % len(KINDS)] for row in range(count)]
    return [[f"a {colour} {thing} .", f"there is a {colour} {thing} ."] for colour, thing in kinds]


def write_codes(folder: Path, count: int = 40, *, channels: int = 12, regions: int | None = None) -> tuple[Path, Path]:
    """The two course files."""
    folder.mkdir(parents=True, exist_ok=True)
    codes, captions = folder / "image_codes.npy", folder / "captions_tokenized.json"
    np.save(codes, fake_codes(count, channels, regions))
    captions.write_text(json.dumps(fake_captions(count)))
    return codes, captions


def vector_checkpoint(attention: str = "none") -> Checkpoint:
    """The small model of the other tests, robbed of its encoder: takes vectors of 1,280 features."""
    from captioner.model.config import NO_ENCODER
    from captioner.model.encoder import NO_PREPROCESSING, CaptionNetwork
    from tests.small_model import small_checkpoint

    whole = small_checkpoint(attention=attention)
    config = replace(whole.network.config, encoder=NO_ENCODER, image_size=NO_PREPROCESSING.size)
    network = CaptionNetwork(config)
    network.decoder = whole.network.decoder
    return replace(whole, network=network.eval(), preprocessing=NO_PREPROCESSING)
