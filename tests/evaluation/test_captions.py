from __future__ import annotations

import json
from pathlib import Path

import pytest

from captioner.datasets.records import Record
from captioner.errors import CaptionerError, EvaluationError
from captioner.evaluation.captions import HumanCaptions, read_annotations
from captioner.metrics.coco import DocumentFrequencies
from tests.evaluation.small import CAPTIONS, REFERENCES, annotations, write_coco


def test_reads_all_captions_as_written(tmp_path: Path) -> None:
    human = read_annotations(write_coco(tmp_path))
    assert human.captions == REFERENCES
    assert human.images == {}


def test_finds_images_where_a_folder_is_named(tmp_path: Path) -> None:
    human = read_annotations(write_coco(tmp_path), tmp_path / "val2017")
    assert list(human.images) == list(REFERENCES)
    assert all(path.is_file() for path in human.images.values())


def test_images_are_in_the_order_of_the_list_of_images(tmp_path: Path) -> None:
    contents = annotations()
    contents["images"].reverse()
    del contents["images"][0]["file_name"]
    (tmp_path / "captions.json").write_text(json.dumps(contents))
    human = read_annotations(tmp_path / "captions.json", tmp_path)
    assert list(human.captions.items()) == list(reversed(REFERENCES.items()))


def test_needs_no_list_of_images(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"annotations": [{"image_id": "a.jpg", "caption": "a dog"}], "images": 3}))
    assert read_annotations(path, tmp_path).captions == {"a.jpg": ["a dog"]}


def test_a_image_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    contents = {
        "annotations": [{"image_id": 1, "caption": "a"}],
        "images": [{"id": 1, "file_name": "../../x"}],
    }
    (tmp_path / "captions.json").write_text(json.dumps(contents))
    assert read_annotations(tmp_path / "captions.json", tmp_path).images == {1: tmp_path / "x"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("{", "not valid JSON"),
        ('[{"image_id": 1, "caption": "a"}]', "a results file, not annotations; give it as `predictions`"),
        ("[]", "not a COCO caption file"),
        ('{"annotations": []}', "holds no captions"),
        ('{"annotations": [{"image_id": 1, "category_id": 3}]}', "holds objects, not captions"),
        ('{"images": [{"sentences": []}]}', "give `dataset` karpathy"),
        (
            '{"annotations": [{"image_id": 1, "caption": "a"}, {"image_id": true, "caption": "a"}]}',
            r"annotations\[1\] has no 'image_id' or no text",
        ),
        (
            '{"annotations": [{"image_id": 1, "caption": 3}]}',
            r"annotations\[0\] has no 'image_id' or",
        ),
    ],
)
def test_a_file_without_captions_is_one_clear_error(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "captions.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CaptionerError, match=message) as caught:
        read_annotations(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_judges_all_images_or_says_which_have_no_caption(tmp_path: Path) -> None:
    human = read_annotations(write_coco(tmp_path))
    assert len(human.judging(CAPTIONS)) == 6
    with pytest.raises(EvaluationError, match=r"mine\.json: 5 of 6 images have no caption: 20, 30, 40, 50, 60"):
        human.judging([10], source="mine.json")


def test_a_subset_has_its_own_document_frequencies_unless_a_table_is_given(tmp_path: Path) -> None:
    human = read_annotations(write_coco(tmp_path))
    assert human.judging([10, 20], subset=True).frequencies is None
    table = DocumentFrequencies(100, {})
    assert human.judging([10, 20], subset=True, frequencies=table).frequencies is table


def test_images_with_the_same_id_are_an_error() -> None:
    records = [Record(1, Path("a.jpg"), ("a",), "val"), Record(1, Path("b.jpg"), ("b",), "val")]
    with pytest.raises(EvaluationError, match="two images have the same id"):
        HumanCaptions.from_records(records)
