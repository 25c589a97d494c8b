from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captioner.datasets import DatasetOptions, read_records
from captioner.errors import DatasetError, OptionError
from tests.vectors import fake_captions, write_codes


def options(folder: Path, **more: Any) -> DatasetOptions:
    return DatasetOptions(
        ("codes",),
        codes=str(folder / "image_codes.npy"),
        captions=str(folder / "captions_tokenized.json"),
        **more,
    )


def test_records_name_file_and_row(tmp_path: Path) -> None:
    codes, _ = write_codes(tmp_path, 20)
    records = read_records(options(tmp_path), "all")
    assert [record.row for record in records] == [record.image_id for record in records] == list(range(20))
    assert {record.path for record in records} == {codes}
    assert [list(record.captions) for record in records] == fake_captions(20)


def test_a_seeded_share_is_held_out(tmp_path: Path) -> None:
    write_codes(tmp_path, 40)
    splits = {split: read_records(options(tmp_path, holdout=0.25), split) for split in ("train", "val", "all")}
    rows = {split: {record.row for record in records} for split, records in splits.items()}
    assert len(rows["val"]) == 10
    assert rows["train"] | rows["val"] == rows["all"] == set(range(40))
    assert not rows["train"] & rows["val"]
    assert {record.split for record in splits["val"]} == {"val"}
    again = read_records(options(tmp_path, holdout=0.25), "val")
    assert again == splits["val"]
    other = read_records(options(tmp_path, holdout=0.25, holdout_seed=1), "val")
    assert {record.row for record in other} != rows["val"]


@pytest.mark.parametrize("how", ["colon", "data"])
def test_a_folder_holds_both_under_their_usual_names(tmp_path: Path, how: str) -> None:
    write_codes(tmp_path, 10)
    if how == "colon":
        records = read_records(DatasetOptions((f"codes:{tmp_path}",)), "all")
    else:
        records = read_records(DatasetOptions(("codes",), data=str(tmp_path)), "all")
    assert len(records) == 10


def test_there_is_no_test_split(tmp_path: Path) -> None:
    write_codes(tmp_path, 10)
    with pytest.raises(DatasetError, match=r"codes in .*captions_tokenized.json: no captioned image .*'test'"):
        read_records(options(tmp_path), "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("[[", "not valid JSON"),
        ('{"0": ["a dog"]}', "must hold a list with one list of captions for each image"),
        ('"a dog"', "must hold a list"),
        ('[["a dog"]]', r"has 3 images, .* has captions of 1; both must be about the same images"),
        ('[["a dog"], "a cat", ["a bird"]]', "image 1: must have a list of captions, not a text"),
        ('[["a dog"], null, ["a bird"]]', "image 1: must have a list of captions, not null"),
        ('[["a dog"], ["a", 7], ["a bird"]]', "image 1, caption 1: must be a text, not a number"),
        ('[["a dog"], [["a", "cat"]], ["a bird"]]', "image 1, caption 0: must be a text, not a list"),
        ('[["a dog"], [true], ["a bird"]]', "image 1, caption 0: must be a text, not true or false"),
        (
            '[["a dog"], [], [" "]]',
            "2 of 3 images have no caption, the first is image 1; give `skip_missing`",
        ),
        ("[" * 100_000, "not valid JSON"),
        ("[[], [], []]", "3 of 3 images have no caption"),
    ],
)
def test_hostile_captions_are_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    write_codes(tmp_path, 3)
    (tmp_path / "captions_tokenized.json").write_text(content)
    with pytest.raises(DatasetError, match=message) as failure:
        read_records(options(tmp_path), "train")
    assert "captions_tokenized.json" in str(failure.value)
    assert "\n" not in str(failure.value)


def test_images_without_captions_can_be_left_out(tmp_path: Path) -> None:
    write_codes(tmp_path, 4)
    content = [["a dog"], [], ["a cat", " "], ["  "]]
    (tmp_path / "captions_tokenized.json").write_text(json.dumps(content))
    records = read_records(options(tmp_path, skip_missing=True), "all")
    assert [(record.row, record.captions) for record in records] == [(0, ("a dog",)), (2, ("a cat",))]


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    write_codes(tmp_path, 2)
    (tmp_path / "captions_tokenized.json").write_text("[[], []]")
    with pytest.raises(DatasetError, match="no captioned image"):
        read_records(options(tmp_path, skip_missing=True), "train")


def test_an_array_of_another_length_is_refused(tmp_path: Path) -> None:
    write_codes(tmp_path, 10)
    np.save(tmp_path / "image_codes.npy", np.ones((11, 12), np.float32))
    with pytest.raises(DatasetError, match=r"image_codes.npy has 11 images, .* captions of 10"):
        read_records(options(tmp_path), "train")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": ("codes",)}, "say where the codes are with `codes` FILE"),
        ({"dataset": ("codes",), "codes": "c"}, "say where the captions are with `captions` FILE"),
        (
            {"dataset": ("codes", "flickr8k:D"), "codes": "c"},
            "`dataset` codes: ready-made vectors go with no",
        ),
        (
            {"dataset": ("flickr8k:D", "codes")},
            "`dataset` codes: ready-made vectors go with no other data set",
        ),
        ({"dataset": ("flickr8k:D", "codes:E")}, "`dataset` codes:E: ready-made vectors go with no other"),
        ({"dataset": ("codes:D", "codes:E")}, "ready-made vectors go with no other data set"),
        ({"dataset": ("codes:D",), "images": "I"}, "`images` is about images; `dataset` codes takes `codes`"),
        ({"dataset": ("codes:D",), "annotations": "A"}, "`annotations` is about images"),
        ({"dataset": ("flickr8k:D",), "codes": "c"}, "`codes` goes with `dataset` codes only"),
        ({"dataset": ("table:D", "coco:E"), "captions": "c"}, "`captions` goes with `dataset` codes only"),
        ({"dataset": ("codes:D",), "data": "E"}, "names a folder already"),
    ],
)
def test_vectors_are_combined_with_nothing_else(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        DatasetOptions(**values)


def test_only_codes_are_of_vectors() -> None:
    assert DatasetOptions(("codes:D",)).of_vectors
    assert not DatasetOptions(("table:D", "coco:E")).of_vectors
