from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from captioner.datasets import DatasetOptions
from captioner.errors import DatasetError, TrainingError
from captioner.interrupt import Interrupted
from captioner.training.data import Batch, ValidationSet
from captioner.training.folder import Log
from captioner.training.options import TrainingOptions
from captioner.training.trainer import Trainer, train
from tests.training import shapes
from tests.training.runs import assert_same_run, read_rows, run_folder

Tiny = Callable[..., TrainingOptions]


def _at_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Do something after a step."""
    step = Trainer._step

    def acting(trainer: Trainer, parts: Sequence[Batch]) -> None:
        step(trainer, parts)
        if trainer.state.step == number:
            act()

    monkeypatch.setattr(Trainer, "_step", acting)


def _interrupt(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    _at_step(monkeypatch, number, lambda: signal.raise_signal(signal.SIGINT))


# In the first step; after the last step of an epoch and again in the next one.
@pytest.mark.parametrize("steps", [[1], [6, 9]])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    finished: TrainingOptions,
    datasets: DatasetOptions,
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[int],
) -> None:
    options = tiny(epochs=2)
    for number, step in enumerate(steps):
        with monkeypatch.context() as patch:
            _interrupt(patch, step)
            with pytest.raises(Interrupted, match=f"everything is saved up to step {step}"):
                train(datasets, options, resume=number > 0)
    torch.rand(3)  # whatever else draws random numbers in between
    train(datasets, options, resume=True)
    assert_same_run(finished.output, options.output)


def test_a_second_interrupt_breaks_off_and_the_last_saved_state_goes_on(
    finished: TrainingOptions, datasets: DatasetOptions, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        _at_step(patch, 9, twice)
        with pytest.raises(Interrupted, match="without saving the last steps"):
            train(datasets, tiny(epochs=2))
    assert len(read_rows(run_folder(tiny()).path / "steps.csv")) == 6
    train(datasets, tiny(epochs=2), resume=True)
    assert_same_run(finished.output, tiny(epochs=2).output)


def test_an_interrupt_in_validation_stops_after_it(
    finished: TrainingOptions, datasets: DatasetOptions, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = ValidationSet.score

    def interrupting(*arguments: Any) -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        return judge(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ValidationSet, "score", interrupting)
        with pytest.raises(Interrupted, match="saved up to step 6"):
            train(datasets, tiny(epochs=2))
    train(datasets, tiny(epochs=2), resume=True)
    assert_same_run(finished.output, tiny(epochs=2).output)


def test_what_an_epoch_wrote_before_its_state_was_saved_is_written_once(
    finished: TrainingOptions, datasets: DatasetOptions, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = Log.epoch

    def killed(log: Log, row: Mapping[str, float]) -> None:
        note(log, row)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Log, "epoch", killed)
        with pytest.raises(Interrupted, match="without saving"):
            train(datasets, tiny(epochs=2))
    assert len(read_rows(run_folder(tiny()).path / "epochs.csv")) == 1
    train(datasets, tiny(epochs=2), resume=True)
    assert_same_run(finished.output, tiny(epochs=2).output)


def test_the_handler_of_interrupts_is_put_back(datasets: DatasetOptions, tiny: Tiny) -> None:
    before = signal.getsignal(signal.SIGINT)  # in the background a shell lets it be ignored
    train(datasets, tiny(epochs=1))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_is_left_as_it_is(
    finished: TrainingOptions, datasets: DatasetOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(finished)
    files = sorted(path for path in folder.output.parent.rglob("*") if path.is_file())
    before = [(path, path.stat().st_mtime_ns) for path in files]
    assert train(datasets, finished, resume=True) == folder.output
    assert "nothing to do, all 2 epochs are done; the best epoch was" in capsys.readouterr().err
    files = sorted(path for path in folder.output.parent.rglob("*") if path.is_file())
    assert [(path, path.stat().st_mtime_ns) for path in files] == before


def test_resuming_what_never_began_begins(
    finished: TrainingOptions, datasets: DatasetOptions, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    train(datasets, tiny(epochs=2), resume=True)
    assert "starting from the beginning" in capsys.readouterr().err
    assert_same_run(finished.output, tiny(epochs=2).output)


@pytest.fixture
def half(datasets: DatasetOptions, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> TrainingOptions:
    """A run that was interrupted in its second epoch."""
    with monkeypatch.context() as patch:
        _interrupt(patch, 8)
        with pytest.raises(Interrupted):
            train(datasets, tiny(epochs=2))
    return tiny(epochs=2)


def test_a_run_is_resumed_with_the_same_settings_and_data_only(
    half: TrainingOptions, tiny: Tiny, table: Path, tmp_path: Path
) -> None:
    datasets = DatasetOptions(dataset=(f"table:{table}",))
    with pytest.raises(TrainingError, match=r"other settings .*: lr \(lr was 0.01, is now 0.001\)"):
        train(datasets, tiny(epochs=2, lr=1e-3), resume=True)
    with pytest.raises(TrainingError, match=r": epochs, seed \(epochs was 2, is now 4\)"):
        train(datasets, tiny(epochs=4, seed=5), resume=True)
    shapes.write_table(tmp_path / "other", 16, 8)
    with pytest.raises(TrainingError, match=r": data \(data was 24 photos .*, is now 16 photos"):
        train(DatasetOptions(dataset=(f"table:{tmp_path}/other",)), half, resume=True)


def test_a_damaged_state_or_a_lost_checkpoint_is_one_line(half: TrainingOptions, datasets: DatasetOptions) -> None:
    folder = run_folder(half)
    folder.output.rename(folder.output.with_suffix(".moved"))
    with pytest.raises(TrainingError, match="the best checkpoint so far, is gone"):
        train(datasets, half, resume=True)
    folder.state.write_bytes(folder.state.read_bytes()[:-100])
    with pytest.raises(TrainingError, match=r"state\.pt: is damaged .*`overwrite`"):
        train(datasets, half, resume=True)


def test_an_earlier_run_is_not_touched_unless_asked_and_then_replaced_whole(
    half: TrainingOptions, datasets: DatasetOptions, tiny: Tiny, finished: TrainingOptions
) -> None:
    folder = run_folder(half)
    before = folder.state.read_bytes()
    with pytest.raises(TrainingError, match="`resume` goes on with it, `overwrite` replaces it"):
        train(datasets, half)
    # A new run that fails before it begins takes nothing away either.
    with pytest.raises(DatasetError):
        train(DatasetOptions(dataset=("table:/nowhere",)), half, overwrite=True)
    assert folder.state.read_bytes() == before
    old = {path.name for path in (folder.path / "tensorboard").iterdir()}
    train(datasets, half, overwrite=True)
    assert_same_run(finished.output, half.output)
    assert not old & {path.name for path in (folder.path / "tensorboard").iterdir()}
