from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from captioner.errors import OptionError
from captioner.training.options import TrainingOptions

WRONG = [
    ("output", "model.pt"),
    ("image_size", 0),
    ("resize", "stretch"),
    ("cell", "transformer"),
    ("hidden_size", 0),
    ("embedding_size", -1),
    ("attention", "much"),
    ("attention_size", 0),
    ("attention_heads", 0),
    ("attention_spread", -1.0),
    ("attention_spread", math.inf),
    ("dropout", 1.0),
    ("dropout", math.nan),
    ("min_count", 0),
    ("max_words", 0),
    ("epochs", 0),
    ("epochs", 1.5),
    ("batch_size", 0),
    ("lr", 0.0),
    ("lr", -1e-3),
    ("lr", math.nan),
    ("lr", math.inf),
    ("warmup", 1.0),
    ("warmup", -0.1),
    ("weight_decay", -1.0),
    ("weight_decay", math.inf),
    ("label_smoothing", 1.0),
    ("clip", "norm:0"),
    ("clip", "5"),
    ("truncate_bptt", 0),
    ("truncate_bptt", 2.5),
    ("scheduled_sampling", -0.1),
    ("scheduled_sampling", 1.1),
    ("scheduled_sampling", math.nan),
    ("word_dropout", 1.0),
    ("word_dropout", -0.1),
    ("proportions", "2:0"),
    ("proportions", "two"),
    ("proportions", "1:inf"),
    ("proportions", ""),
    ("ema", 1.0),
    ("ema", -0.1),
    ("accumulate", 0),
    ("samples", 1),
    ("cross_entropy_weight", -0.1),
    ("cross_entropy_weight", 1.0),
    ("objective", "bleu"),
    ("save_every", -1.0),
    ("save_every", math.inf),
    ("layers", 0),
    ("nonlinearity", "relu"),
    ("residual_layers", 1),
    ("patience", -1),
    ("select_by", "METEOR"),
    ("beam_size", 0),
    ("seed", -1),
    ("seed", 1 << 31),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_an_impossible_value_is_named_in_one_line(name: str, value: object) -> None:
    with pytest.raises(OptionError) as raised:
        TrainingOptions(**{"output": "x.safetensors", name: value})  # type: ignore[arg-type]
    message = str(raised.value)
    assert f"`{name}`" in message
    assert str(value) in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"samples": 3}, "`samples` 3 is for `objective` self_critical"),
        ({"cross_entropy_weight": 0.2}, "`cross_entropy_weight` 0.2 is for `objective` self_critical"),
        ({"reward_end": True}, "`reward_end` is for `objective` self_critical"),
        ({"objective": "self_critical"}, "give it with `init`"),
        (
            {"objective": "self_critical", "init": "a.safetensors", "scheduled_sampling": 0.2},
            "`scheduled_sampling` 0.2 is for cross-entropy; give `cross_entropy_weight` too",
        ),
        (
            {"objective": "self_critical", "init": "a.safetensors", "word_dropout": 0.2},
            "`word_dropout` 0.2 is for cross-entropy; give `cross_entropy_weight` too",
        ),
    ],
)
def test_what_would_be_asked_for_in_vain_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TrainingOptions(output="x.safetensors", **given)


def test_all_options_but_the_output_have_working_defaults() -> None:
    options = TrainingOptions(output="x.safetensors")
    assert options.clip == "norm:5"


def test_every_option_is_explained() -> None:
    assert [item.name for item in fields(TrainingOptions) if not item.metadata.get("help")] == []


def test_every_option_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    flags = ["--" + item.name.replace("_", "-") for item in fields(TrainingOptions)]
    assert [flag for flag in flags if flag not in text] == []
