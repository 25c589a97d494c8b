from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from captioner.download.fetch import disk_errors, free_space, readable_size
from captioner.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, r"cannot be written \(Perm")]
)
def test_failed_writes_are_one_clear_line(tmp_path: Path, number: int, message: str) -> None:
    with pytest.raises(DatasetError, match=f"{tmp_path}: {message}"), disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))


def test_free_space_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert free_space(tmp_path / "a" / "b") > 0


def test_sizes_are_decimal() -> None:
    assert readable_size(815_585_330) == "0.82 GB"
    assert readable_size(2_340_801) == "2.3 MB"
