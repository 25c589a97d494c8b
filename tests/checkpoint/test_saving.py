from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
import torch

from captioner.checkpoint import Checkpoint
from captioner.errors import CheckpointError
from captioner.saving import save_checkpoint
from tests.checkpoint.altering import DECODER_BIAS, assert_refused, join, split
from tests.small_model import small_checkpoint


def test_a_new_file_has_the_usual_permissions_and_folders_are_made(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    path = tmp_path / "a" / "b" / "x.safetensors"
    save_checkpoint(path, checkpoint)
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text("old")

    def fail(descriptor: int) -> None:
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CheckpointError if isinstance(failure, OSError) else KeyboardInterrupt) as caught:
        save_checkpoint(path, checkpoint)
    if isinstance(failure, OSError):
        assert str(caught.value) == f"cannot write {path}: No space left on device"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("x.safetensors", "old")]


def test_a_disk_that_is_really_full_is_one_clear_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits on file sizes are a matter of Unix")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write .*x\.safetensors: File too large"):
            save_checkpoint(tmp_path / "x.safetensors", checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_a_file_or_onto_a_folder_cannot_be_written(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match="cannot write"):
        save_checkpoint(tmp_path / "file" / "x.safetensors", checkpoint)
    with pytest.raises(CheckpointError, match=r"cannot write .*folder: Is a directory"):
        save_checkpoint(tmp_path / "folder", checkpoint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_weights_that_are_no_numbers_are_neither_written_nor_read(value: float, tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, checkpoint, dtype=torch.float32)
    header, tensors = split(path)
    start, _ = header[DECODER_BIAS]["data_offsets"]
    damaged = tensors[:start] + struct.pack("<f", value) + tensors[start + 4 :]
    path.write_bytes(join(header, damaged))
    assert_refused(path, f"{DECODER_BIAS} holds values")
    checkpoint.network.state_dict()[DECODER_BIAS][0] = value
    with pytest.raises(CheckpointError, match=f"{DECODER_BIAS} holds values"):
        save_checkpoint(path, checkpoint)
