from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from captioner.datasets import DatasetOptions, present, read_records
from captioner.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path


def _image(name: str, split: str, *captions: str, **more: object) -> dict[str, Any]:
    return {"filename": name, "split": split, "sentences": [{"raw": text} for text in captions], **more}


def _write(folder: Path, images: object, name: str = "dataset_mine.json") -> Path:
    file = folder / name
    file.write_text(json.dumps({"images": images, "dataset": "mine"}), encoding="utf-8")
    return file


def _options(folder: Path, **more: Any) -> DatasetOptions:
    return DatasetOptions((f"karpathy:{folder}",), **more)


def test_restval_joins_train_and_order_is_kept(tmp_path: Path) -> None:
    _write(
        tmp_path,
        [
            _image("1.jpg", "restval", "A dog."),
            _image("2.jpg", "val", "A cat."),
            _image("3.jpg", "train", "A cow.", "Cow."),
            _image("4.jpg", "test", "A hen."),
        ],
    )
    train = read_records(_options(tmp_path), "train")
    assert [(record.image_id, record.captions) for record in train] == [
        ("1.jpg", ("A dog.",)),
        ("3.jpg", ("A cow.", "Cow.")),
    ]
    assert [record.split for record in read_records(_options(tmp_path), "all")] == [
        "train",
        "val",
        "train",
        "test",
    ]
    assert [record.image_id for record in read_records(_options(tmp_path), "validation")] == ["2.jpg"]


def test_coco_numbers_and_subfolders(tmp_path: Path) -> None:
    (tmp_path / "val2014").mkdir()
    _write(tmp_path, [_image("7.jpg", "test", "A.", cocoid=7, filepath="val2014", imgid=0)])
    (record,) = read_records(_options(tmp_path), "test")
    assert (record.image_id, record.path) == (7, tmp_path / "val2014" / "7.jpg")


def test_subfolders_below_images_and_images_without_subfolder(tmp_path: Path) -> None:
    (tmp_path / "images" / "val2014").mkdir(parents=True)
    _write(
        tmp_path,
        [
            _image("7.jpg", "test", "A.", filepath="val2014"),
            _image("8.jpg", "test", "B.", filepath="train2014"),
            _image("9.jpg", "test", "C."),
        ],
    )
    paths = [record.path for record in read_records(_options(tmp_path), "test")]
    images = tmp_path / "images"
    assert paths == [images / "val2014" / "7.jpg", images / "8.jpg", images / "9.jpg"]


def test_images_named_by_hand(tmp_path: Path) -> None:
    (tmp_path / "val2014").mkdir()
    file = _write(tmp_path, [_image("7.jpg", "test", "A.", filepath="val2014")])
    options = DatasetOptions(("karpathy",), annotations=str(file), images=str(tmp_path / "val2014"))
    assert read_records(options, "test")[0].path == tmp_path / "val2014" / "7.jpg"


def test_several_files_ask_for_a_choice(tmp_path: Path) -> None:
    _write(tmp_path, [_image("1.jpg", "test", "A.")], "dataset_coco.json")
    chosen = _write(tmp_path, [_image("2.jpg", "test", "A.")], "dataset_flickr8k.json")
    with pytest.raises(DatasetError, match=r"dataset_coco.json, dataset_flickr8k.json\); say which with `annot"):
        read_records(_options(tmp_path), "test")
    assert read_records(_options(tmp_path, annotations=str(chosen)), "test")[0].image_id == "2.jpg"


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no dataset_\*\.json"):
        read_records(_options(tmp_path), "test")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "not one of Karpathy's files"),
        ({"a": 1}, "not one of Karpathy's files"),
        ([_image("1.jpg", "train", "A."), 3], r"images\[1\] lacks a text 'filename'"),
        (
            [_image("1.jpg", "train", "A."), {**_image("2.jpg", "train"), "sentences": 1}],
            r"images\[1\] lacks",
        ),
        ([{**_image("1.jpg", "train"), "sentences": [{"tokens": []}]}], "sentence without a text 'raw'"),
        ([_image("1.jpg", "extra", "A.")], "unknown split 'extra'"),
        ([_image("1.jpg", "train", "A.", cocoid=1.5)], "'cocoid' that is no number"),
        ([_image("1.jpg", "train", "A.", filepath=3)], "'filepath' that is no text"),
        ([_image("1.jpg", "train", "A."), _image("1.jpg", "val", "B.")], "repeats the image 1.jpg"),
        ([_image("1.jpg", "train", "A.", filepath="../..")], "outside the folder"),
        ([_image("../1.jpg", "train", "A.")], "outside the folder"),
    ],
)
def test_wrong_contents_are_one_clear_line(tmp_path: Path, images: object, message: str) -> None:
    file = _write(tmp_path, images)
    with pytest.raises(DatasetError, match=message) as caught:
        read_records(_options(tmp_path), "train")
    assert str(file) in str(caught.value)


def test_a_coco_file_is_recognised(tmp_path: Path) -> None:
    file = tmp_path / "captions_val2017.json"
    file.write_text(json.dumps({"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": []}))
    with pytest.raises(DatasetError, match="`dataset` coco"):
        read_records(DatasetOptions(("karpathy",), annotations=str(file)), "test")


def test_empty_captions_and_images_left_without_any_are_dropped(tmp_path: Path) -> None:
    _write(tmp_path, [_image("1.jpg", "val", " ", "A dog."), _image("2.jpg", "val", "\t")])
    (record,) = read_records(_options(tmp_path), "val")
    assert record.captions == ("A dog.",)


def test_the_real_flickr8k_file_agrees_with_the_official_lists(real_data: Path) -> None:
    folder = real_data / "flickr8k"
    official = read_records(DatasetOptions((f"flickr8k:{folder}",)), "all")
    theirs = read_records(_options(folder), "all")
    assert {(record.image_id, record.split) for record in theirs} == {
        (record.image_id, record.split) for record in official
    }
    assert all(len(record.captions) == 5 for record in theirs)
    kept, absent = present(theirs, skip_missing=True)
    assert (len(kept), {record.split for record in absent}) == (7000, {"test"})
