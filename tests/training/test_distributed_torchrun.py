"""The command as a user gives it, under ``torchrun`` itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captioner.cli import main
from tests.training.conftest import TINY
from tests.training.runs import assert_like, in_double

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # torch is imported five times
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of torchrun in /proc"),
]


def arguments(output: Path, table: Path, cache: Path) -> list[str]:
    options = {**TINY, "dropout": 0, "lr": 1e-3, "batch_size": 7, "epochs": 6, "cache": cache}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return ["train", f"--dataset=table:{table}", *flags, f"--output={output}"]


def torchrun(command: list[str], log: Path) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    with log.open("w") as errors:
        return subprocess.Popen(
            [*launcher, "-m", "tests.training.in_double", *command],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=Path(__file__).parents[2],
        )


def member(launcher: subprocess.Popen[str], rank: int) -> int:
    """The process of a rank."""
    for child in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"there is no process of rank {rank}")


def wait_for(path: Path, launcher: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert launcher.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_process_ends_the_run_which_resumed_ends_like_one_process(
    tmp_path: Path, table: Path, cache: Path
) -> None:
    command = arguments(tmp_path / "two.safetensors", table, cache)
    launcher = torchrun(command, tmp_path / "killed.log")
    wait_for(tmp_path / "two.run" / "plot.png", launcher)  # after the first epoch
    os.kill(member(launcher, 1), signal.SIGKILL)
    out, _ = launcher.communicate(timeout=90)
    assert launcher.returncode != 0
    assert out == ""
    (said,) = [line for line in (tmp_path / "killed.log").read_text().splitlines() if "captioner: error:" in line]
    assert "another process of this run has ended or cannot be reached" in said
    assert "; everything is saved up to step " in said

    resumed = torchrun([*command, "--resume"], tmp_path / "resumed.log")
    out, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, (tmp_path / "resumed.log").read_text()
    assert out == f"{tmp_path / 'two.safetensors'}\n"

    with in_double():
        assert main(arguments(tmp_path / "one.safetensors", table, cache)) == 0
    assert_like(tmp_path / "two.safetensors", tmp_path / "one.safetensors")
