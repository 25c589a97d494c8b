from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from captioner.datasets import DatasetOptions
from captioner.errors import DatasetError, OptionError
from captioner.evaluation.captions import find_images, find_references, training_captions, usual_split
from tests.evaluation.small import REFERENCES, write_coco

if TYPE_CHECKING:
    from pathlib import Path


def test_all_of_a_coco_file_is_evaluated_and_else_val(tmp_path: Path) -> None:
    file = write_coco(tmp_path)
    assert usual_split(DatasetOptions(("coco",), annotations=str(file))) == "all"
    assert usual_split(DatasetOptions(("coco",), data=str(tmp_path))) == "val"
    assert usual_split(DatasetOptions((f"flickr8k:{tmp_path}", f"table:{tmp_path}"))) == "val"


def test_absent_images_are_counted_before_the_limit(tmp_path: Path) -> None:
    options = DatasetOptions(("coco",), annotations=str(write_coco(tmp_path)), skip_missing=True)
    (tmp_path / "val2017" / f"{10:012}.png").unlink()
    images = find_images(options, None, 2)
    assert [record.image_id for record in images.records] == [20, 30]
    assert (images.absent, images.available) == (1, 6)
    assert images.name == "coco captions_val2017.json"


def test_absent_images_are_an_error_unless_skipped(tmp_path: Path) -> None:
    options = DatasetOptions(("coco",), annotations=str(write_coco(tmp_path)))
    (tmp_path / "val2017" / f"{10:012}.png").unlink()
    with pytest.raises(DatasetError, match="1 of 6 images are absent"):
        find_images(options, None, None)


def test_references_need_no_images(tmp_path: Path) -> None:
    options = DatasetOptions(("coco",), annotations=str(write_coco(tmp_path)))
    (tmp_path / "val2017" / f"{10:012}.png").unlink()
    human, name = find_references(options, "val", annotations=None, images=None)
    assert {i: list(texts) for i, texts in human.captions.items()} == REFERENCES
    assert name == "coco val"


def test_a_caption_file_alone_is_enough(tmp_path: Path) -> None:
    human, name = find_references(None, None, annotations=str(write_coco(tmp_path)), images=None)
    assert human.captions == REFERENCES
    assert name == "captions_val2017.json"


def test_without_either_it_says_what_to_give() -> None:
    with pytest.raises(OptionError, match="give `annotations` FILE, or `dataset`"):
        find_references(None, None, annotations=None, images=None)


def test_training_captions_are_those_of_the_train_split(tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.write_text("image,caption,split\n1.jpg,one,train\n1.jpg,two,train\n2.jpg,three,val\n")
    assert training_captions(DatasetOptions(("table",), data=str(tmp_path))) == ["one", "two"]
