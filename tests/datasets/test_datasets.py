from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from captioner.datasets import DatasetOptions, read_each, read_records
from captioner.errors import DatasetError, OptionError

if TYPE_CHECKING:
    from pathlib import Path


def _table(folder: Path, rows: str) -> str:
    folder.mkdir()
    (folder / "captions.csv").write_text("image,caption,split\n" + rows)
    return f"table:{folder}"


def test_data_sets_are_joined_in_order_under_unique_labels(tmp_path: Path) -> None:
    options = DatasetOptions(
        (_table(tmp_path / "b", "1.jpg,One.,train\n"), _table(tmp_path / "a", "2.jpg,Two.,train\n"))
    )
    first, second = read_each(options, "train")
    assert (first[0], second[0]) == ("table", "table-2")
    assert read_records(options, "train") == first[1] + second[1]
    assert [record.image_id for record in read_records(options, "train")] == ["1.jpg", "2.jpg"]


def test_a_data_set_with_nothing_in_the_split_is_named(tmp_path: Path) -> None:
    options = DatasetOptions((_table(tmp_path / "a", "1.jpg,One.,val\n"), _table(tmp_path / "b", "2.jpg,Two.,train\n")))
    with pytest.raises(DatasetError, match=f"table in {tmp_path / 'b'}: no captioned image in the split 'val'"):
        read_records(options, "val")


def test_unknown_split_is_an_option_error_before_anything_is_read() -> None:
    with pytest.raises(OptionError, match="no such split"):
        read_records(DatasetOptions(("coco:/nowhere",)), "evaluation")
