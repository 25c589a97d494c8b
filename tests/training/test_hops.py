"""How many modules a reader of one training step has to open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from captioner.datasets import DatasetOptions
from captioner.training.options import TrainingOptions
from captioner.training.trainer import Trainer, train
from tests.hops import passed

MOST = 15

# The options of a step that bring in most modules.
EVERYTHING = {
    "attention": "adaptive",
    "attention_spread": 1.0,
    "clip": "auto,hidden:1",
    "ema": 0.9,
    "layers": 2,
    "scheduled_sampling": 0.5,
    "truncate_bptt": 3,
    "word_dropout": 0.1,
}


@pytest.mark.parametrize("changes", [{}, EVERYTHING, {"finetune_from": "8", "augment": "crop"}])
def test_a_training_step_passes_few_modules(
    datasets: DatasetOptions,
    tiny: Callable[..., TrainingOptions],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
) -> None:
    modules: set[str] = set()
    step = Trainer._step

    def traced(trainer: Trainer, parts: Sequence[Any]) -> None:
        with passed(modules):
            step(trainer, parts)

    monkeypatch.setattr(Trainer, "_step", traced)
    train(datasets, tiny(epochs=1, **changes))
    assert "captioner.model.decoder" in modules
    assert len(modules) <= MOST, sorted(modules)
