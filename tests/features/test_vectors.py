from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from captioner.datasets.records import Record
from captioner.errors import DatasetError
from captioner.features import VectorStore
from tests.vectors import fake_codes


def records(path: Path, *rows: int) -> list[Record]:
    return [Record(row, path, ("a dog",), "train", row) for row in rows]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("regions", [None, 3])
def test_rows_are_fetched_as_they_are(tmp_path: Path, dtype: type, regions: int | None) -> None:
    array = fake_codes(9, regions=regions).astype(dtype)
    np.save(tmp_path / "x.npy", array)
    store = VectorStore(tmp_path / "x.npy")
    assert store.shape == (regions or 1, 12)
    rows = store.features_of(records(tmp_path / "x.npy", 7, 2, 5))
    found = rows.fetch([2, 0])
    assert found.dtype == np.float32
    expected = array[[5, 7]] if regions else array[[5, 7]][:, None]
    assert (found == expected.astype(np.float32)).all()
    assert isinstance(rows.array, np.memmap)


def test_equal_vectors_share_a_row_and_digest(tmp_path: Path) -> None:
    array = fake_codes(6)
    array[4] = array[1]
    np.save(tmp_path / "x.npy", array)
    rows = VectorStore(tmp_path / "x.npy").features_of(records(tmp_path / "x.npy", *range(6)))
    assert rows.rows.tolist() == [0, 1, 2, 3, 1, 5]
    assert rows.digests[4] == rows.digests[1]
    assert len(set(rows.digests)) == 5


def test_digests_tell_vectors_apart_wherever_they_lie(tmp_path: Path) -> None:
    array = fake_codes(6)
    np.save(tmp_path / "x.npy", array)
    np.save(tmp_path / "y.npy", array[::-1])
    one = VectorStore(tmp_path / "x.npy").features_of(records(tmp_path / "x.npy", *range(6)))
    other = VectorStore(tmp_path / "y.npy").features_of(records(tmp_path / "y.npy", *range(6)))
    assert one.digests == other.digests[::-1]


def test_rows_without_numbers_are_broken(tmp_path: Path) -> None:
    array = fake_codes(6)
    array[3, 2] = np.nan
    np.save(tmp_path / "x.npy", array)
    rows = VectorStore(tmp_path / "x.npy").features_of(records(tmp_path / "x.npy", 5, 3, 0))
    assert rows.rows.tolist() == [5, -1, 0]
    assert rows.digests[1] == ""
    assert rows.broken == {1: f"{tmp_path / 'x.npy'}#3: holds values that are infinite or not numbers"}


def test_a_broken_row_that_nobody_wants_is_no_problem(tmp_path: Path) -> None:
    array = fake_codes(6)
    array[3, 2] = np.nan
    np.save(tmp_path / "x.npy", array)
    assert not VectorStore(tmp_path / "x.npy").features_of(records(tmp_path / "x.npy", 1, 2)).broken


def test_a_file_of_no_vectors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_text("no array")
    with pytest.raises(DatasetError, match="is not a NumPy array"):
        VectorStore(tmp_path / "x.npy")
