from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from captioner.errors import OptionError, TrainingError
from captioner.training.folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "model.safetensors")


def _earlier_run(folder: RunFolder) -> None:
    folder.path.mkdir()
    folder.state.write_text("state")
    folder.last.write_text("last")
    (folder.path / "steps.csv").write_text("steps")
    (folder.path / "epochs.csv").write_text("epochs")
    (folder.path / "tensorboard").mkdir()
    (folder.path / "tensorboard" / "events.out").write_text("events")
    folder.output.write_text("best")


def test_the_folder_lies_beside_the_output(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "a.b.safetensors").path == tmp_path / "a.b.run"


@pytest.mark.parametrize(("resume", "overwrite"), [(False, False), (True, False), (False, True)])
def test_nothing_there_is_no_obstacle_and_the_check_leaves_nothing(
    folder: RunFolder, resume: bool, overwrite: bool
) -> None:
    folder.check(resume=resume, overwrite=overwrite)
    assert list(folder.output.parent.iterdir()) == []


def test_an_earlier_run_is_resumed_or_replaced_on_request_only(folder: RunFolder) -> None:
    _earlier_run(folder)
    with pytest.raises(TrainingError, match="`resume` goes on with it, `overwrite` replaces it"):
        folder.check(resume=False, overwrite=False)
    folder.check(resume=True, overwrite=False)
    folder.check(resume=False, overwrite=True)
    with pytest.raises(OptionError, match="give one of them"):
        folder.check(resume=True, overwrite=True)


@pytest.mark.parametrize("resume", [True, False])
def test_a_checkpoint_without_a_run_is_never_lost_by_chance(folder: RunFolder, resume: bool) -> None:
    folder.output.write_text("precious")
    with pytest.raises(TrainingError, match="`overwrite` replaces it"):
        folder.check(resume=resume, overwrite=False)
    folder.check(resume=False, overwrite=True)


def test_a_new_run_starts_without_what_the_earlier_one_left(folder: RunFolder) -> None:
    _earlier_run(folder)
    (folder.path / "notes.txt").write_text("somebody's own")
    folder.start_anew()
    assert [path.name for path in folder.path.iterdir()] == ["notes.txt"]
    assert folder.output.read_text() == "best"


def test_an_output_in_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="absent: there is no such folder"):
        RunFolder(tmp_path / "absent" / "x.safetensors").check(resume=False, overwrite=False)


def test_what_is_in_the_way_is_named(folder: RunFolder) -> None:
    folder.path.write_text("a file")
    with pytest.raises(TrainingError, match=r"model\.run is in the way"):
        folder.check(resume=False, overwrite=False)
    folder.output.mkdir()
    with pytest.raises(TrainingError, match=r"model\.safetensors is in the way"):
        folder.check(resume=False, overwrite=True)


@contextmanager
def _nobody() -> Iterator[None]:
    """Root may write everywhere, so it steps down."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_folder_without_leave_to_write_is_refused(tmp_path: Path, mode: int) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(mode)
    try:
        with _nobody(), pytest.raises(TrainingError, match=r"cannot write .*: Permission denied"):
            RunFolder(closed / "x.safetensors").check(resume=False, overwrite=False)
    finally:
        closed.chmod(0o700)
