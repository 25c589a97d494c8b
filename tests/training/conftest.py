from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from captioner.datasets import DatasetOptions
from captioner.training.folder import Log
from captioner.training.options import TrainingOptions
from captioner.training.trainer import train
from tests.training import processes, shapes
from tests.training.runs import in_double

TINY = {
    "encoder": "efficientnet_lite0",
    "image_size": 64,
    "hidden_size": 48,
    "embedding_size": 48,
    "dropout": 0.1,
    "min_count": 1,
    "epochs": 2,
    "batch_size": 4,
    "lr": 1e-2,
    "patience": 0,
    "device": "cpu",
    "precision": "fp32",
}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all tests keep features, so that equal images are encoded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 24 training and 8 validation images."""
    folder = tmp_path_factory.mktemp("table")
    shapes.write_table(folder, 24, 8)
    return folder


@pytest.fixture
def datasets(table: Path) -> DatasetOptions:
    return DatasetOptions(dataset=(f"table:{table}",))


@pytest.fixture
def tiny(tmp_path: Path, cache: Path) -> Callable[..., TrainingOptions]:
    """Options of a run of seconds; the first argument names its output."""

    def make(name: str = "model", **changes: object) -> TrainingOptions:
        output = str(tmp_path / f"{name}.safetensors")
        return TrainingOptions(**{"output": output, "cache": str(cache), **TINY, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def finished(table: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingOptions:
    """A run of two epochs (12 steps) that nothing has disturbed."""
    output = tmp_path_factory.mktemp("finished") / "whole.safetensors"
    options = TrainingOptions(**{"output": str(output), "cache": str(cache), **TINY, "epochs": 2})  # type: ignore[arg-type]
    train(DatasetOptions(dataset=(f"table:{table}",)), options)
    return options


@pytest.fixture
def double_training() -> Iterator[None]:
    """Trainings compute in float64."""
    with in_double():
        yield


@pytest.fixture(autouse=True)
def _quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take longer than all else; the tests of the journal draw them."""
    if "test_log" not in request.node.nodeid:
        monkeypatch.setattr(Log, "_plot", lambda _journal: None)


@pytest.fixture(scope="session", autouse=True)
def _no_graphs() -> Iterator[None]:
    """Trainings write no graphs, which take seconds to export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("captioner.training.trainer.graphs_of", lambda *_, **__: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the processes that tests start, whose runs are to equal those of this one bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _fork_server() -> None:
    processes.preload()
