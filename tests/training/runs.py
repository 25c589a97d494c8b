"""What trainings leave behind, read back and compared to the last bit."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch

from captioner.checkpoint import load_checkpoint
from captioner.training.folder import RunFolder
from captioner.training.options import TrainingOptions
from captioner.training.state import load_state


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
