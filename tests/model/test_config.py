from __future__ import annotations

from dataclasses import asdict

import pytest

from captioner.errors import OptionError
from captioner.model.config import ModelConfig
from captioner.options import from_dict
from tests.model.test_decoder import SMALL


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 0},
        {"hidden_size": "8"},
        {"hidden_size": 1 << 40},
        {"channels": True},
        {"encoder": 5},
        {"cell": "transformer"},
        {"attention": "hard"},
        {"tie_embeddings": 1},
        {"dropout": 1.0},
        {"dropout": None},
        {"layers": 0},
        {"layers": 17},
        {"layers": "2"},
        {"layers": True},
        {"nonlinearity": "relu"},
        {"nonlinearity": ["tanh"]},
        {"nonlinearity": "sigmoid", "cell": "lstm"},
        {"residual_layers": 1, "layers": 2},
        {"residual_layers": True},
    ],
)
def test_impossible_values_are_refused_by_name(change: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=next(iter(change))):
        ModelConfig(**(SMALL | change))  # type: ignore[arg-type]


def test_a_configuration_survives_being_written_down() -> None:
    config = ModelConfig(**SMALL)  # type: ignore[arg-type]
    assert from_dict(ModelConfig, asdict(config), "the model configuration") == config


def test_absent_and_unknown_fields_are_named() -> None:
    data = asdict(ModelConfig(**SMALL))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="depth"):
        from_dict(ModelConfig, data | {"depth": 3}, "the model configuration")
    del data["channels"]
    with pytest.raises(OptionError, match="channels"):
        from_dict(ModelConfig, data, "the model configuration")


def test_the_configuration_of_an_older_checkpoint_has_one_layer() -> None:
    data = asdict(ModelConfig(**SMALL))  # type: ignore[arg-type]
    older = {name: data[name] for name in data if name not in ("layers", "nonlinearity", "residual_layers")}
    assert from_dict(ModelConfig, older, "the model configuration") == ModelConfig(**SMALL)  # type: ignore[arg-type]
