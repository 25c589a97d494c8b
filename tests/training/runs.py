"""What trainings leave behind, read back and compared: to the last bit, or but for the order of sums."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.model.encoder import Encoder
from captioner.training import data
from captioner.training.encoding import TunedEncoder, fetch
from captioner.training.folder import RunFolder, load_state
from captioner.training.options import TrainingOptions
from captioner.training.trainer import Trainer
from tests import tolerance
from tests.tolerance import SIX_DIGITS, adam_bound, summation_bound


def run_folder(options: TrainingOptions) -> RunFolder:
    return RunFolder(Path(options.output))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def bits(value: Any) -> Any:
    """Tensors as bytes, so that nested values can be compared by ``==``."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, list | tuple) else value


def assert_same_run(one: str | Path, other: str | Path) -> None:
    """Equal best and last weights, logs, and states: weights in full precision, optimiser, random numbers."""
    first, second = RunFolder(Path(one)), RunFolder(Path(other))
    for here, there in ((first.output, second.output), (first.last, second.last)):
        weights = load_checkpoint(there).network.state_dict()
        for key, value in load_checkpoint(here).network.state_dict().items():
            assert torch.equal(value, weights[key]), key
    for name in ("steps.csv", "epochs.csv"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()
    assert bits(vars(load_state(first.state))) == bits(vars(load_state(second.state)))


@contextmanager
def in_double() -> Iterator[None]:
    """Within the block trainings compute in float64.

    In float32 the order of sums decides whether a unit of an encoder is just above or just below zero, and
    what AdamW makes of a gradient that is nothing but rounding.
    """
    begin, look, set_up = TunedEncoder.__init__, TunedEncoder.__call__, Trainer.__init__

    def begun(tuned: TunedEncoder, encoder: Encoder, *more: Any, **options: Any) -> None:
        begin(tuned, encoder.double(), *more, **options)

    def looked(tuned: TunedEncoder, images: torch.Tensor) -> torch.Tensor:
        return look(tuned, images.double())

    def fetched(*asked: Any) -> torch.Tensor:
        return fetch(*asked).double()

    def set_up_in_double(trainer: Trainer, checkpoint: Checkpoint, *more: Any, **options: Any) -> None:
        checkpoint.network.double()
        set_up(trainer, checkpoint, *more, **options)

    with pytest.MonkeyPatch.context() as patch, tolerance.in_double():
        patch.setattr(TunedEncoder, "__init__", begun)
        patch.setattr(TunedEncoder, "__call__", looked)
        patch.setattr(data, "fetch", fetched)
        patch.setattr(Trainer, "__init__", set_up_in_double)
        yield


def assert_like(one: str | Path, other: str | Path) -> None:
    """Two runs in float64 have taken the same way but for rounding: losses, decisions, scores, weights."""
    first, second = RunFolder(Path(one)), RunFolder(Path(other))
    for name in ("steps.csv", "epochs.csv"):
        rows, others = read_rows(first.path / name), read_rows(second.path / name)
        assert len(rows) == len(others) > 0
        for row, twin in zip(rows, others, strict=True):
            for column, value in row.items():
                if column in ("step", "epoch", "skipped") or not value:
                    assert value == twin[column]
                else:
                    expected = pytest.approx(float(twin[column]), abs=0, rel=SIX_DIGITS, nan_ok=True)
                    assert float(value) == expected, column
    mine, theirs = load_state(first.state), load_state(second.state)
    assert mine.weights
    bound = weight_bound(mine.optimiser, mine.step)
    averages = (mine.average.get("weights", {}), theirs.average.get("weights", {}))
    for weights, expected in ((mine.weights, theirs.weights), averages):
        assert weights.keys() == expected.keys()
        for key in weights:
            assert weights[key].dtype == torch.float64
            torch.testing.assert_close(weights[key], expected[key], rtol=0, atol=bound)


def weight_bound(optimiser: Mapping[str, Any], steps: int, terms: int = 1000, magnitude: float = 10.0) -> float:
    """How far the weights of two trainings in float64 may lie apart that add gradients in different orders.

    Args:
        optimiser: its state at the end of one of them.
        steps: how many it has taken.
        terms: more than are added for an element of a gradient: one for each word of a step.
        magnitude: more than the absolute values of these terms make together.
    """
    lr = max(group["highest"] for group in optimiser["param_groups"])
    return adam_bound(lr, steps, summation_bound(terms, magnitude, torch.float64))
