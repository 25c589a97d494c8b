"""Trainings in processes of their own that are killed, interrupted or left without disk space."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from captioner.cli import main
from captioner.training.folder import RunFolder, load_state
from tests.training import processes
from tests.training.conftest import TINY
from tests.training.runs import assert_same_run

Command = Callable[..., list[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def command(folder: Path, table: Path, cache: Path) -> Command:
    """Arguments of ``captioner train`` for a run of two epochs of six steps."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]

    def make(name: str, *more: str) -> list[str]:
        places = ["--output", str(folder / f"{name}.safetensors"), "--cache", str(cache)]
        return ["train", f"--dataset=table:{table}", *flags, *places, *more]

    return make


@pytest.fixture(scope="module")
def whole(folder: Path, command: Command) -> RunFolder:
    """The run that nothing has disturbed."""
    assert main(command("whole")) == 0
    return RunFolder(folder / "whole.safetensors")


# Before the first state of an epoch's end, and after it.
@pytest.mark.parametrize("step", [4, 9])
def test_after_kill_9_in_mid_epoch_resuming_ends_like_an_uninterrupted_run(
    tmp_path: Path, folder: Path, command: Command, whole: RunFolder, step: int
) -> None:
    name = f"killed-at-{step}"
    process = processes.start(processes.command, tmp_path / "log", command(name), step, signal.SIGKILL)
    assert processes.finish(process) == -signal.SIGKILL
    assert main(command(name, "--resume")) == 0
    assert_same_run(folder / f"{name}.safetensors", whole.output)


def test_after_kill_9_everything_that_a_step_depends_on_comes_back(
    tmp_path: Path, folder: Path, command: Command
) -> None:
    # Three steps an epoch. The last state is of step 4, within the second epoch.
    flags = [
        "--ema=0.9",
        "--clip=auto:40,hidden:1",
        "--scheduled-sampling=0.8",
        "--accumulate=2",
        "--layers=2",
    ]
    assert main(command("everything", *flags)) == 0
    often = command("everything-killed", *flags, "--save-every=1e-6")
    process = processes.start(processes.command, tmp_path / "log", often, 5, signal.SIGKILL)
    assert processes.finish(process) == -signal.SIGKILL
    state = load_state(RunFolder(folder / "everything-killed.safetensors").state)
    assert (state.epoch, state.batch, state.step, len(state.norms)) == (1, 2, 4, 4)
    assert main([*often, "--resume"]) == 0
    assert_same_run(folder / "everything-killed.safetensors", folder / "everything.safetensors")


def test_ctrl_c_saves_tells_how_to_resume_and_exits_with_130(
    tmp_path: Path, folder: Path, command: Command, whole: RunFolder
) -> None:
    process = processes.start(processes.command, tmp_path / "log", command("stopped"), 8, signal.SIGINT)
    assert processes.finish(process) == 130
    said = (tmp_path / "log").read_text()
    assert "finishing this step and saving; Ctrl-C again breaks off" in said
    assert said.splitlines()[-1] == (
        "captioner: interrupted; everything is saved up to step 8; to go on, give the same command with --resume"
    )
    assert main(command("stopped", "--resume")) == 0
    assert_same_run(folder / "stopped.safetensors", whole.output)


def test_a_full_disk_is_one_line_and_the_run_can_be_resumed(
    tmp_path: Path, folder: Path, command: Command, whole: RunFolder
) -> None:
    # Enough for the state, too little for a checkpoint with its encoder.
    limit = whole.state.stat().st_size + 1000
    assert limit < whole.output.stat().st_size
    process = processes.start(processes.command_with_little_disk, tmp_path / "log", command("full"), limit)
    assert processes.finish(process) == 2
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert re.fullmatch(r"captioner: error: cannot write .*last\.safetensors: File too large", last)
    assert not (folder / "full.safetensors").exists()
    assert main(command("full", "--resume")) == 0
    assert_same_run(folder / "full.safetensors", whole.output)
