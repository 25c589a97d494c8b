from __future__ import annotations

import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from captioner.checkpoint import load_checkpoint
from captioner.errors import CheckpointError
from tests.checkpoint.altering import assert_refused


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "absent", "no such checkpoint")
    assert_refused(tmp_path, "is a folder")
    assert_refused(tmp_path / ("x" * 300), "cannot be read")
    (tmp_path / "empty").touch()
    assert_refused(tmp_path / "empty", "truncated, damaged or not a safetensors file")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 40)  # takes no space on the disk
    assert_refused(tmp_path / "huge", "too many for a checkpoint")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a matter of Unix")
def test_a_named_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert_refused(tmp_path / "pipe", "is not a regular file")


class _Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (os.mkdir, ("executed",))


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_a_pickle_in_disguise_is_refused_and_not_run(
    write: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = io.BytesIO()
    write(_Bomb(), content)
    (tmp_path / "x.safetensors").write_bytes(content.getvalue())
    assert_refused(tmp_path / "x.safetensors", "not a safetensors file")
    assert not (tmp_path / "executed").exists()


def test_nothing_is_unpickled(checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a pickle is read")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    load_checkpoint(checkpoint_file)


def test_safetensors_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for metadata in (None, {"format": "pt"}):
        path.write_bytes(save({"weight": torch.zeros(2)}, metadata))
        assert_refused(path, "not a checkpoint of captioner")


def test_truncated_files_are_refused(checkpoint_file: Path, tmp_path: Path) -> None:
    content = checkpoint_file.read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    for length in (1, 7, 8, 9, header // 2, 8 + header, 9 + header, len(content) // 2, len(content) - 1):
        (tmp_path / "x.safetensors").write_bytes(content[:length])
        assert_refused(tmp_path / "x.safetensors", "truncated")


def test_a_longer_file_is_refused(checkpoint_file: Path, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(checkpoint_file.read_bytes() + b"\0")
    assert_refused(tmp_path / "x.safetensors", "damaged")


@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=200))
def test_random_bytes_are_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
