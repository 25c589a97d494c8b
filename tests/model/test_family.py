"""Every cell, in one layer and in two, from the image to a saved model that writes captions."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.decoding.filters import SPECIAL_IDS
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.model.config import CELLS
from captioner.model.encoder import CaptionNetwork
from captioner.runtime.torch import DecoderModel
from captioner.saving import save_checkpoint
from tests.small_model import small_checkpoint

VARIANTS = [
    *({"cell": cell, "layers": layers} for cell, layers in itertools.product(CELLS, (1, 2))),
    {"cell": "rnn", "nonlinearity": "sigmoid"},
    {"cell": "lstm", "layers": 3, "residual_layers": True, "attention": "additive"},
]
variants = pytest.mark.parametrize("variant", VARIANTS, ids=lambda found: "-".join(map(str, found.values())))


@pytest.fixture(scope="module")
def base() -> Checkpoint:
    return small_checkpoint()


def checkpoint_of(base: Checkpoint, variant: dict[str, object]) -> Checkpoint:
    torch.manual_seed(3)
    network = CaptionNetwork(replace(base.network.config, **variant))  # type: ignore[arg-type]
    network.encoder = base.network.encoder
    with torch.no_grad():
        for parameter in network.decoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # so that captions differ
    return replace(base, network=network.eval())


@variants
def test_images_in_a_batch_get_the_captions_that_they_get_alone(base: Checkpoint, variant: dict[str, object]) -> None:
    decoder = DecoderModel(checkpoint_of(base, variant).network.decoder)
    regions = torch.randn(4, 3, 1280, generator=torch.Generator().manual_seed(0)).abs()
    options = DecodingOptions(beam_size=3, max_length=8)
    together = decode(decoder, regions, options, SPECIAL_IDS)
    alone = [decode(decoder, regions[row : row + 1], options, SPECIAL_IDS)[0] for row in range(4)]
    assert [best.words for best, *_ in together] == [best.words for best, *_ in alone]
    assert len({tuple(best.words) for best, *_ in together}) > 1


@variants
def test_a_saved_model_writes_what_it_wrote_before(
    base: Checkpoint, variant: dict[str, object], tmp_path: Path
) -> None:
    before = checkpoint_of(base, variant)
    save_checkpoint(tmp_path / "x.safetensors", before, dtype=torch.float32, external_encoder=True)
    after = load_checkpoint(tmp_path / "x.safetensors")
    assert after.network.config == before.network.config
    own, other = before.network.decoder.state_dict(), after.network.decoder.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in own.items())
