from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from captioner.datasets.records import Record, canonical_split, present
from captioner.errors import DatasetError, OptionError

if TYPE_CHECKING:
    from pathlib import Path


def _records(folder: Path, names: list[str]) -> list[Record]:
    return [Record(name, folder / name, ("A dog.",), "val") for name in names]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", "train"),
        ("val", "val"),
        ("dev", "val"),
        ("validation", "val"),
        ("test", "test"),
        ("all", "all"),
    ],
)
def test_synonyms_of_splits(name: str, expected: str) -> None:
    assert canonical_split(name) == expected


@pytest.mark.parametrize("name", ["restval", "", "Train", "vali"])
def test_unknown_split_is_refused_with_the_known_names(name: str) -> None:
    with pytest.raises(OptionError, match=r"choose from train, val, dev, validation, test, all"):
        canonical_split(name)


def test_all_present(tmp_path: Path) -> None:
    records = _records(tmp_path, ["b.jpg", "a.jpg"])
    for record in records:
        record.path.touch()
    assert present(records, skip_missing=False) == (records, [])


def test_absent_images_stop_with_counts_and_first_names(tmp_path: Path) -> None:
    records = _records(tmp_path, [f"{i}.jpg" for i in range(7)])
    records[0].path.touch()
    with pytest.raises(DatasetError, match=r"6 of 7 images are absent .*: 1.jpg, 2.jpg, 3.jpg, \.\.\.; .*skip"):
        present(records, skip_missing=False)


def test_skip_missing_keeps_order_and_returns_the_absent(tmp_path: Path) -> None:
    records = _records(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    records[0].path.touch()
    records[2].path.touch()
    assert present(records, skip_missing=True) == ([records[0], records[2]], [records[1]])


@pytest.mark.parametrize("skip_missing", [False, True])
def test_no_image_at_all_names_the_folder_even_when_skipping(tmp_path: Path, skip_missing: bool) -> None:
    with pytest.raises(DatasetError, match=f"not one of the 2 images is in {tmp_path}.*a.jpg.*`images`"):
        present(_records(tmp_path, ["a.jpg", "b.jpg"]), skip_missing)


def test_a_folder_named_like_a_image_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    (tmp_path / "b.jpg").touch()
    kept, absent = present(_records(tmp_path, ["a.jpg", "b.jpg"]), skip_missing=True)
    assert [record.image_id for record in kept] == ["b.jpg"]
    assert [record.image_id for record in absent] == ["a.jpg"]


def test_no_records_are_no_error() -> None:
    assert present([], skip_missing=False) == ([], [])
