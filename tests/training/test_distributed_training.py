"""Processes that train together end like one; when one of them ends early, nothing hangs or is lost."""

from __future__ import annotations

import functools
import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from captioner.cli import main
from captioner.training.folder import RunFolder, load_state
from captioner.training.options import TrainingOptions
from tests.training import worlds
from tests.training.conftest import TINY
from tests.training.runs import assert_like, assert_same_run, in_double, read_rows

Command = Callable[..., list[str]]

LOST = "captioner: error: another process of this run has ended or cannot be reached ("
GO_ON = "; to go on, give the same command with --resume"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def command(folder: Path, table: Path, cache: Path) -> Command:
    """Arguments of ``captioner train`` for two epochs over 24 images, without dropout unless asked for."""
    defaults = {**TINY, "dropout": 0, "batch_size": 7, "lr": 1e-3, "cache": cache}

    def make(name: str, *more: str, **changes: object) -> list[str]:
        options = {**defaults, "output": folder / f"{name}.safetensors", **changes}
        flags = [f"--{option.replace('_', '-')}={value}" for option, value in options.items()]
        return ["train", f"--dataset=table:{table}", *flags, *more]

    return make


def together(
    logs: Path, command: Sequence[str], *setups: worlds.Setup, size: int = 2, machines: int = 1
) -> worlds.Members:
    logs.mkdir(exist_ok=True)
    return worlds.start(logs, worlds.train, [(command, *setups)] * size, machines=machines)


# What a step may consist of: two parts, hidden states limited, a threshold from past norms, an average.
EVERYTHING = ("--accumulate=2", "--clip=auto,hidden:0.01", "--ema=0.9", "--truncate-bptt=3", "--layers=2")


@pytest.mark.parametrize(
    ("name", "size", "machines", "changes", "more"),
    [
        ("plain", 2, 1, {}, ()),
        ("everything", 2, 1, {"batch_size": 5}, EVERYTHING),
        ("finetuning", 2, 1, {}, ("--finetune-from=3", "--augment=crop", "--clip=norm:1")),
        # The last batch of an epoch has one image: two of three processes have nothing to do.
        ("idle", 3, 3, {"batch_size": 23, "cell": "gru"}, ("--clip=value:0.001",)),
    ],
)
def test_losses_scores_and_weights_are_those_of_one_process(
    tmp_path: Path,
    folder: Path,
    command: Command,
    name: str,
    size: int,
    machines: int,
    changes: dict[str, object],
    more: tuple[str, ...],
) -> None:
    with in_double():
        assert main(command(f"{name}-alone", *more, **changes)) == 0
    setups = [
        worlds.in_double,
        functools.partial(worlds.record_images, tmp_path),
        functools.partial(worlds.record_captioned, tmp_path, 3),
    ]
    logs = tmp_path / "logs"
    members = together(logs, command(name, *more, **changes), *setups, size=size, machines=machines)
    assert members.finish() == [0] * size, members.said()
    assert_like(folder / f"{name}.safetensors", folder / f"{name}-alone.safetensors")

    # Each image, with all of its captions, was trained on once an epoch, in one of the processes.
    seen: dict[int, list[int]] = {0: [], 1: []}
    for file in tmp_path.glob("photos-*"):
        for line in file.read_text().splitlines():
            epoch, _, images = json.loads(line)
            seen[epoch] += images
    assert {epoch: sorted(images) for epoch, images in seen.items()} == {0: [*range(24)], 1: [*range(24)]}

    # Each of the 8 validation images was captioned once an epoch, in batches of 3, 3 and 2.
    counts = [(tmp_path / f"captioned-{rank}").read_text().split() for rank in range(size)]
    assert counts == {2: [["3", "2"] * 2, ["3"] * 2], 3: [["3"] * 2, ["3"] * 2, ["2"] * 2]}[size]

    leader, *others = members.said()
    assert leader[-1] == str(folder / f"{name}.safetensors")
    assert len([line for line in leader if "finished, all 2 epochs are done" in line]) == 1
    assert others == [[]] * (size - 1)


@pytest.mark.parametrize(
    ("name", "size", "more"),
    [
        ("critical", 2, ("--cross-entropy-weight=0.3", *EVERYTHING[:3])),
        ("critical-tuned", 3, ("--finetune-from=8", "--augment=flip")),
    ],
)
def test_processes_draw_the_captions_that_one_process_draws(
    tmp_path: Path, folder: Path, command: Command, finished: TrainingOptions, name: str, size: int, more: Any
) -> None:
    objective = ("--objective=self_critical", f"--init={finished.output}", "--samples=3", "--epochs=1")
    with in_double():
        assert main(command(f"{name}-alone", *objective, *more)) == 0
    members = together(tmp_path, command(name, *objective, *more), worlds.in_double, size=size)
    assert members.finish() == [0] * size, members.said()
    assert_like(folder / f"{name}.safetensors", folder / f"{name}-alone.safetensors")
    assert float(read_rows(folder / f"{name}.run" / "epochs.csv")[0]["reward"]) > 0


def test_only_rank_0_writes_and_no_image_is_encoded_twice(tmp_path: Path, folder: Path, command: Command) -> None:
    # The second process, on another machine, has neither a folder for the output nor a cache yet.
    own = command("writes", cache=tmp_path / "cache-0")
    other = command("writes", cache=tmp_path / "cache-1", output=tmp_path / "absent" / "no.safetensors")
    members = worlds.start(tmp_path, worlds.train, [(own,), (other,)], machines=2)
    assert members.finish() == [0, 0], members.said()
    assert not (tmp_path / "absent").exists()
    assert {path.name for path in (folder / "writes.run").iterdir()} >= {
        "state.pt",
        "steps.csv",
        "epochs.csv",
    }
    for cache in ("cache-0", "cache-1"):
        (index,) = (tmp_path / cache / "features").glob("*/index.txt")
        rows = index.read_text().split()
        assert len(rows) == len(set(rows)) == 32


def test_processes_with_different_commands_do_not_begin(tmp_path: Path, folder: Path, command: Command) -> None:
    pair = [(command("differ"),), (command("differ", lr=0.002),)]
    members = worlds.start(tmp_path, worlds.train, pair)
    assert members.finish() == [2, 2]
    own, other = members.said()
    assert own[-1].startswith("captioner: error: process 1 on ")
    assert own[-1].endswith("in lr (lr is 0.002, not 0.001); give all of them the same command and data")
    assert other == []
    assert not (folder / "differ.run").exists()


def test_a_step_without_a_number_in_one_process_is_skipped_by_all(
    tmp_path: Path, folder: Path, command: Command
) -> None:
    setup = functools.partial(worlds.no_number_for, image=5, epoch=0)
    members = together(tmp_path, command("skips"), worlds.in_double, setup)
    assert members.finish() == [0, 0], members.said()
    alone = worlds.start(tmp_path, worlds.train, [(command("skips-alone"), worlds.in_double, setup)])
    assert alone.finish() == [0], alone.said()
    assert [row["skipped"] for row in read_rows(folder / "skips.run" / "epochs.csv")] == ["1", "0"]
    assert_like(folder / "skips.safetensors", folder / "skips-alone.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, folder: Path, command: Command) -> RunFolder:
    """A run of two processes with dropout that nothing has disturbed."""
    members = together(tmp_path_factory.mktemp("whole"), command("whole", dropout=0.3))
    assert members.finish() == [0, 0], members.said()
    return RunFolder(folder / "whole.safetensors")


def assert_resumes(folder: Path, logs: Path, command: list[str], whole: RunFolder) -> None:
    """Two processes go on and end, to the bit, as if nothing had happened."""
    members = together(logs, [*command, "--resume"])
    assert members.finish() == [0, 0], members.said()
    assert_same_run(Path(next(flag for flag in command if "--output" in flag).partition("=")[2]), whole.output)


@pytest.mark.parametrize(
    ("name", "setup"),
    [
        ("stepping", functools.partial(worlds.on_step, 6)),
        ("validating", functools.partial(worlds.in_validation, epoch=1)),
    ],
)
def test_when_a_process_is_killed_the_others_save_and_say_so(
    tmp_path: Path,
    folder: Path,
    command: Command,
    whole: RunFolder,
    name: str,
    setup: Callable[..., None],
) -> None:
    arguments = command(name, dropout=0.3)
    kill = functools.partial(setup, rank=1, act=functools.partial(worlds.send_signal, signal.SIGKILL))
    members = together(tmp_path / "killed", arguments, kill)
    assert members.finish() == [2, -signal.SIGKILL]
    step = {"stepping": 6, "validating": 8}[name]
    said = members.said()[0][-1]
    assert said.startswith(LOST)
    assert said.endswith(f"); everything is saved up to step {step}{GO_ON}")
    assert load_state(RunFolder(folder / f"{name}.safetensors").state).step == step
    assert_resumes(folder, tmp_path / "resumed", arguments, whole)


def test_when_rank_0_is_killed_the_others_end_and_its_last_state_goes_on(
    tmp_path: Path, folder: Path, command: Command, whole: RunFolder
) -> None:
    arguments = command("headless", dropout=0.3)
    setup = functools.partial(worlds.on_step, 6, 0, functools.partial(worlds.send_signal, signal.SIGKILL))
    members = together(tmp_path / "killed", arguments, setup)
    assert members.finish() == [-signal.SIGKILL, 2]
    (said,) = members.said()[1]
    assert said.startswith("captioner: error: process 1 on ")
    assert said.endswith(f"); what process 0 saved last is kept{GO_ON}")
    assert_resumes(folder, tmp_path / "resumed", arguments, whole)


def test_a_signal_to_one_process_stops_all_after_the_same_step(
    tmp_path: Path, folder: Path, command: Command, whole: RunFolder
) -> None:
    arguments = command("stopped", dropout=0.3)
    setup = functools.partial(worlds.on_step, 3, 1, functools.partial(worlds.send_signal, signal.SIGTERM))
    members = together(tmp_path / "stopped", arguments, setup)
    assert members.finish() == [130, 130]
    own, other = members.said()
    assert own[-1] == f"captioner: interrupted; everything is saved up to step 3{GO_ON}"
    assert other == []
    assert_resumes(folder, tmp_path / "resumed", arguments, whole)


def test_a_run_may_go_on_with_another_number_of_processes(tmp_path: Path, folder: Path, command: Command) -> None:
    stop = functools.partial(worlds.on_step, 3, 0, functools.partial(worlds.send_signal, signal.SIGINT))
    members = together(tmp_path / "three", command("grows"), worlds.in_double, stop, size=3)
    assert members.finish() == [130] * 3
    with in_double():
        assert main(command("grows", "--resume")) == 0
        assert main(command("grows-alone")) == 0
    assert_like(folder / "grows.safetensors", folder / "grows-alone.safetensors")
