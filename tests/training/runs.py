"""What trainings leave behind, read back and compared to the last bit."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from captioner.checkpoint import load_checkpoint
from captioner.training.options import TrainingOptions
from captioner.training.state import RunFolder, load_state


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


def assert_like(one: str | Path, other: str | Path) -> None:
    """Two runs have taken the same way but for rounding: losses, decisions, scores, all weights, to 1e-5."""
    first, second = RunFolder(Path(one)), RunFolder(Path(other))
    for name in ("steps.csv", "epochs.csv"):
        rows, others = read_rows(first.path / name), read_rows(second.path / name)
        assert len(rows) == len(others) > 0
        for row, twin in zip(rows, others, strict=True):
            for column, value in row.items():
                if column in ("step", "epoch", "skipped") or not value:
                    assert value == twin[column]
                else:  # the files hold six digits
                    # A unit of an encoder in training that rounding lifts over its threshold has a gradient.
                    rel = 2e-3 if column == "gradient_norm" else 1.1e-5
                    expected = pytest.approx(float(twin[column]), abs=1e-5, rel=rel, nan_ok=True)
                    assert float(value) == expected, column
    mine, theirs = load_state(first.state), load_state(second.state)
    assert mine.weights
    averages = (mine.average.get("weights", {}), theirs.average.get("weights", {}))
    for weights, expected in ((mine.weights, theirs.weights), averages):
        assert weights.keys() == expected.keys()
        for key in weights:
            torch.testing.assert_close(weights[key], expected[key], rtol=0, atol=1e-5)
