"""What processes that train together say to each other."""

from __future__ import annotations

import contextlib
import json
import signal
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captioner.cli import main
from captioner.errors import OptionError, TrainingError
from captioner.training import distributed
from captioner.training.data import make_batch
from captioner.training.distributed import ALONE, World, joined
from tests.training import worlds

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@given(st.integers(0, 50), st.integers(1, 9))
def test_shares_cover_everything_once_and_differ_by_one_at_most(count: int, size: int) -> None:
    spans = [World(rank, size).span(count) for rank in range(size)]
    assert [place for first, end in spans for place in range(first, end)] == list(range(count))
    lengths = [end - first for first, end in spans]
    assert max(lengths) - min(lengths) <= 1


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=5), st.integers(1, 7))
def test_shares_of_a_batch_hold_each_caption_once(lengths: list[list[int]], size: int) -> None:
    captions = [[list(range(length + 1)) for length in image] for image in lengths]
    batch = make_batch(list(range(len(captions))), captions)
    found = []
    for rank in range(size):
        share = batch.part(*World(rank, size).span(len(batch.images)))
        assert share.lengths.tolist() == sorted(share.lengths.tolist(), reverse=True)
        assert len(share.lengths) == 0 or share.words.shape[1] == share.lengths[0] + 1
        for owner, words, length in zip(share.owners, share.words, share.lengths, strict=True):
            found.append((share.images[owner], words[: length + 1].tolist()))
    assert sorted(found) == sorted((image, ids) for image, all_ids in enumerate(captions) for ids in all_ids)


def test_a_process_without_torchrun_is_alone_and_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    before, random = signal.getsignal(signal.SIGTERM), torch.get_rng_state()
    with joined() as world:
        assert world is ALONE
        assert signal.getsignal(signal.SIGTERM) is before
        parameter = torch.nn.Parameter(torch.ones(2))
        world.seed(1, 2)
        assert world.sum_gradients([parameter], [1.5]) == [1.5]
        assert parameter.grad is None
        world.send_weights([parameter])
        world.agree({"lr": 1})
        assert (world.gather("here"), world.share("here"), world.any(False)) == (["here"], "here", False)
        with world.first_on_each_machine():
            pass
        assert not torch.distributed.is_initialized()
    assert torch.equal(torch.get_rng_state(), random)


def test_one_process_under_torchrun_is_alone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    with joined() as world:
        assert world is ALONE


def test_wrong_use_is_told_by_one_process_of_a_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = (["train", "--lr", "much"], ["train", "--dataset=coco", "--output=a.safetensors", "--lr=-1"])
    for arguments in wrong:
        for rank, lines in (("0", 1), ("1", 0)):
            monkeypatch.setenv("LOCAL_RANK", rank)
            with contextlib.suppress(SystemExit):
                assert main(arguments) == 2
            assert len(capsys.readouterr().err.splitlines()) == lines


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "RANK '', WORLD_SIZE '2', LOCAL_RANK '', .* MASTER_PORT ''; .* torchrun, or unset"),
        ({"RANK": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, "do not fit together: RANK '2'"),
        ({"RANK": "one", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, "do not fit together: RANK 'one'"),
        ({"RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "3"}, "do not fit together"),
    ],
)
def test_an_impossible_environment_is_one_line(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    if environment:
        for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", **environment}.items():
            monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match=message), joined():
        pass


def test_processes_that_cannot_be_met_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_MEETING", timedelta(seconds=1))
    for name, value in zip(NAMES, ("1", "2", "1", "2", "127.0.0.1", "9"), strict=True):
        monkeypatch.setenv(name, value)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(TrainingError, match=r"cannot meet the other processes at 127.0.0.1:9 \("), joined():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_each_process_takes_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    world = World(rank=3, size=4, local_rank=1, local_size=2)
    assert world.device(torch.device("cpu")) == torch.device("cpu")
    assert world.device(torch.device("cuda")) == torch.device("cuda:1")
    assert taken == [torch.device("cuda:1")]
    assert ALONE.device(torch.device("cuda:0")) == torch.device("cuda:0")
    with pytest.raises(OptionError, match="this machine has 2 GPUs for 3 processes; lower --nproc_per_node"):
        World(rank=1, size=3, local_rank=1, local_size=3).device(torch.device("cuda"))
    with pytest.raises(OptionError, match="`device` cuda:0 cannot be divided among several processes"):
        world.device(torch.device("cuda:0"))
    with pytest.raises(OptionError, match="`device` mps cannot be divided"):
        world.device(torch.device("mps"))


def test_what_three_processes_exchange(tmp_path: Path) -> None:
    outs = [tmp_path / f"{rank}.json" for rank in range(3)]
    members = worlds.start(tmp_path, worlds.exchange, [[out] for out in outs])
    assert members.finish() == [0, 0, 0], members.said()
    found = [json.loads(out.read_text()) for out in outs]
    for one in found:
        assert one["weights"] == [0, 0, 0, 0]
        assert one["loss"] == [0.75]
        assert one["gradients"] == [[[0, 6, 12], [18, 24, 30]], [1] * 4, None, [float("inf")] * 5]
        assert one["gather"] == [0, 10, 20]
        assert one["share"] == 0
        assert one["any"] == [True, False]
        first, second, again = one["random"]
        assert first == again != second
        assert one["threads after"] == 1
    assert len({tuple(one["random"][0]) for one in found}) == 3
    assert found[0]["before"] == []
    assert all("made-0" in one["before"] for one in found[1:])
    assert [one["threads"] for one in found] == [3, 1, 1]


LOST = "another process of this run has ended or cannot be reached ("


@pytest.mark.parametrize(
    ("kind", "codes", "leader", "follower"),
    [
        ("everywhere", [2, 2], "OptionError: no such thing", ""),
        ("in rank 1", [2, 2], f"ProcessLostError: {LOST}", "captioner: error: process 1 on "),
        ("killed", [-9, 2], "", "captioner: error: process 1 on "),
        ("interrupted", [130, 130], "interrupted", ""),
        ("differing", [2, 2], "TrainingError: process 1 on ", ""),
    ],
)
def test_of_a_failure_one_process_tells(
    tmp_path: Path, kind: str, codes: list[int], leader: str, follower: str
) -> None:
    members = worlds.start(tmp_path, worlds.fail, [[kind], [kind]])
    assert members.finish() == codes
    own, other = members.said()
    assert own.pop(0) == "working"
    assert len(own) == bool(leader)
    assert all(line.startswith(leader) for line in own)
    assert len(other) == bool(follower)
    assert all(line.startswith(follower) for line in other)
    if kind == "in rank 1":
        assert other[0].endswith(": no such thing")
    if kind == "killed":
        assert LOST in other[0]
    if kind == "differing":
        assert " differs from process 0 in lr (lr is 1, not 0); give all of them the same command" in own[0]
