from __future__ import annotations

import itertools

import pytest

from captioner.model.config import ATTENTIONS, CELLS, ModelConfig
from captioner.model.decoder import Decoder, decoder_blueprint

VARIANTS = list(itertools.product(CELLS, ATTENTIONS, (True, False), (1, 2)))


@pytest.mark.parametrize(("cell", "attention", "tied", "layers"), VARIANTS)
def test_a_blueprint_has_the_names_and_shapes_of_the_decoder(
    cell: str, attention: str, tied: bool, layers: int
) -> None:
    config = ModelConfig("resnet18", 64, 6, 11, cell, 8, 9, attention, 8, tied, layers=layers)
    blueprint, decoder = decoder_blueprint(config).state_dict(), Decoder(config).state_dict()
    assert {key: value.shape for key, value in blueprint.items()} == {
        key: value.shape for key, value in decoder.items()
    }
    assert all(value.is_meta for value in blueprint.values())


@pytest.mark.parametrize("cell", CELLS)
def test_a_blueprint_of_any_size_is_made(cell: str) -> None:
    most = 1 << 20
    config = ModelConfig("resnet18", 64, most, most, cell, most, most, "additive", most, False, layers=16)
    assert sum(value.numel() for value in decoder_blueprint(config).parameters()) > 1 << 43
