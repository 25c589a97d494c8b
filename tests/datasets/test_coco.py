from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from captioner.datasets import DatasetOptions, present, read_records
from captioner.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

CONTENTS: dict[str, Any] = {
    "images": [
        {"id": 9, "file_name": "9.jpg"},
        {"id": 4, "file_name": "4.jpg"},
        {"id": 5, "file_name": "5.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 4, "caption": "A cat."},
        {"id": 2, "image_id": 9, "caption": "A dog.\n"},
        {"id": 3, "image_id": 4, "caption": "Two cats."},
        {"id": 4, "image_id": 5, "caption": " \n"},
    ],
}


def _write(folder: Path, name: str, contents: object = CONTENTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(json.dumps(contents), encoding="utf-8")
    return file


def test_captions_are_grouped_in_the_order_of_the_images(tmp_path: Path) -> None:
    _write(tmp_path / "annotations", "captions_val2017.json")
    (tmp_path / "val2017").mkdir()
    first, second = read_records(DatasetOptions((f"coco:{tmp_path}",)), "dev")
    assert (first.image_id, first.captions, first.split) == (9, ("A dog.\n",), "val")
    assert (second.image_id, second.captions) == (4, ("A cat.", "Two cats."))
    assert second.path == tmp_path / "val2017" / "4.jpg"


def test_2014_names_come_from_the_file(tmp_path: Path) -> None:
    name = "COCO_val2014_000000000042.jpg"
    contents = {
        "images": [{"id": 42, "file_name": name}],
        "annotations": [{"image_id": 42, "caption": "A tree."}],
    }
    _write(tmp_path / "annotations", "captions_val2014.json", contents)
    (tmp_path / "val2014").mkdir()
    (record,) = read_records(DatasetOptions(("coco",), data=str(tmp_path)), "val")
    assert (record.image_id, record.path) == (42, tmp_path / "val2014" / name)


def test_years_are_never_mixed(tmp_path: Path) -> None:
    _write(tmp_path / "annotations", "captions_val2017.json")
    _write(tmp_path / "annotations", "captions_train2014.json")
    with pytest.raises(DatasetError, match="holds no captions_"):
        read_records(DatasetOptions((f"coco:{tmp_path}",)), "train")


def test_all_reads_train_and_val(tmp_path: Path) -> None:
    _write(tmp_path / "annotations", "captions_val2017.json")
    contents = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [{"image_id": 1, "caption": "A."}],
    }
    _write(tmp_path / "annotations", "captions_train2017.json", contents)
    records = read_records(DatasetOptions((f"coco:{tmp_path}",)), "all")
    assert [(record.image_id, record.split) for record in records] == [(1, "train"), (9, "val"), (4, "val")]


def test_files_named_by_hand(tmp_path: Path) -> None:
    file = _write(tmp_path / "x", "captions_val2014.json")
    images = tmp_path / "photos"
    images.mkdir()
    options = DatasetOptions(("coco",), annotations=str(file), images=str(images))
    assert [record.path.parent for record in read_records(options, "val")] == [images, images]
    with pytest.raises(DatasetError, match="holds the val split"):
        read_records(options, "train")


def test_folder_of_annotations_named_by_hand(tmp_path: Path) -> None:
    _write(tmp_path / "x", "captions_val2017.json")
    (tmp_path / "val2017").mkdir()
    options = DatasetOptions((f"coco:{tmp_path}",), annotations=str(tmp_path / "x"))
    assert read_records(options, "val")[0].path == tmp_path / "val2017" / "9.jpg"


def test_a_name_without_a_split_is_read_whole_only(tmp_path: Path) -> None:
    file = _write(tmp_path, "mine.json")
    options = DatasetOptions(("coco",), annotations=str(file), images=str(tmp_path))
    assert [record.split for record in read_records(options, "all")] == ["all", "all"]
    with pytest.raises(DatasetError, match="does not say which split it holds; ask for `split` all"):
        read_records(options, "val")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([{"image_id": 1, "caption": "A."}], "results file"),
        ([], "results file"),
        (
            {"images": [], "annotations": [{"image_id": 1, "category_id": 2, "bbox": []}]},
            "objects, not captions",
        ),
        ({"images": [{"sentences": []}]}, "`dataset` karpathy"),
        ({"images": [{"id": 1}]}, "no captions under 'annotations'"),
        ({"images": [], "annotations": []}, "no captions under 'annotations'"),
        ({"info": 1}, "not a COCO caption file"),
        ("text", "not a COCO caption file"),
        ({"images": {}, "annotations": [{"caption": "A."}]}, "not a COCO caption file"),
        ({**CONTENTS, "images": [*CONTENTS["images"], 7]}, r"images\[3\] lacks an id 'id'"),
        ({**CONTENTS, "images": [{"id": [9], "file_name": "9.jpg"}]}, r"images\[0\] lacks"),
        ({**CONTENTS, "images": [{"id": 9, "file_name": None}]}, r"images\[0\] lacks"),
        ({**CONTENTS, "images": [{"id": True, "file_name": "9.jpg"}]}, r"images\[0\] lacks"),
        ({**CONTENTS, "images": CONTENTS["images"] * 2}, r"images\[3\] has the id 9 a second time"),
        (
            {**CONTENTS, "annotations": [{"caption": "A."}]},
            r"annotations\[0\] lacks an id 'image_id' or a text 'caption'",
        ),
        ({**CONTENTS, "annotations": [{"image_id": 4, "caption": 3}]}, r"annotations\[0\] lacks"),
        ({**CONTENTS, "annotations": [{"image_id": 77, "caption": "A."}]}, "image 77, not in images"),
        (
            {
                "images": [{"id": 4, "file_name": "../4.jpg"}],
                "annotations": [{"image_id": 4, "caption": "A."}],
            },
            "outside the folder",
        ),
    ],
)
def test_wrong_contents_are_one_clear_line(tmp_path: Path, contents: object, message: str) -> None:
    file = _write(tmp_path, "captions_val2017.json", contents)
    options = DatasetOptions(("coco",), annotations=str(file), images=str(tmp_path))
    with pytest.raises(DatasetError, match=message) as caught:
        read_records(options, "val")
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_split_without_captions_and_absent_places(tmp_path: Path) -> None:
    _write(
        tmp_path / "annotations",
        "captions_val2017.json",
        {**CONTENTS, "annotations": CONTENTS["annotations"][3:]},
    )
    with pytest.raises(DatasetError, match=f"coco in {tmp_path}: no captioned image in the split 'val'"):
        read_records(DatasetOptions((f"coco:{tmp_path}",)), "val")
    with pytest.raises(DatasetError, match="no such file or folder"):
        read_records(DatasetOptions((f"coco:{tmp_path}/absent",)), "val")
    with pytest.raises(DatasetError, match="no such folder of images"):
        read_records(DatasetOptions((f"coco:{tmp_path}",), images=f"{tmp_path}/absent"), "val")


def test_the_official_file(real_data: Path) -> None:
    records = read_records(DatasetOptions((f"coco:{real_data / 'coco'}",)), "val")
    assert len(records) == 5000
    assert sum(len(record.captions) for record in records) == 25_014
    kept, absent = present(records, skip_missing=True)
    assert (len(kept), len(absent)) == (155, 4845)
    with pytest.raises(DatasetError, match=r"4,845 of 5,000 images are absent"):
        present(records, skip_missing=False)
