from __future__ import annotations

import itertools

import pytest

from captioner.model.blueprint import decoder_blueprint
from captioner.model.config import ATTENTIONS, CELLS, ModelConfig
from captioner.model.decoder import Decoder

VARIANTS = list(itertools.product(CELLS, ATTENTIONS, (True, False)))


@pytest.mark.parametrize(("cell", "attention", "tied"), VARIANTS)
def test_a_blueprint_has_the_names_and_shapes_of_the_decoder(cell: str, attention: str, tied: bool) -> None:
    config = ModelConfig("resnet18", 64, 6, 11, cell, 8, 9, attention, 5, tied)
    blueprint, decoder = decoder_blueprint(config).state_dict(), Decoder(config).state_dict()
    assert {key: value.shape for key, value in blueprint.items()} == {
        key: value.shape for key, value in decoder.items()
    }
    assert all(value.is_meta for value in blueprint.values())


def test_a_blueprint_of_any_size_is_made() -> None:
    most = 1 << 20
    config = ModelConfig("resnet18", 64, most, most, "lstm", most, most, "additive", most, False)
    assert sum(value.numel() for value in decoder_blueprint(config).parameters()) > 1 << 43
