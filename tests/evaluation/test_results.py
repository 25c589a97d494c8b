from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.errors import CaptionerError
from captioner.evaluation.captions import read_results, write_results
from tests.evaluation.small import CAPTIONS, write_coco

if TYPE_CHECKING:
    from pathlib import Path


def test_pycocotools_loads_what_is_written(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed (extra: dev)")
    write_results(tmp_path / "results.json", CAPTIONS)
    loaded = coco.COCO(str(write_coco(tmp_path))).loadRes(str(tmp_path / "results.json"))
    assert {entry["image_id"]: entry["caption"] for entry in loaded.anns.values()} == CAPTIONS


@given(st.dictionaries(st.integers() | st.text(), st.text(), min_size=1))
@settings(deadline=None)
def test_captions_read_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, captions: dict[int | str, str]
) -> None:
    path = tmp_path_factory.mktemp("results") / "results.json"
    write_results(path, captions)
    assert list(read_results(path).items()) == list(captions.items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("[]", "holds no captions"),
        ("[{", "not valid JSON"),
        ("3", "not a results file"),
        ('{"139": "a room"}', "not a results file"),
        ('{"images": [], "annotations": []}', "an annotations file, not results; give it as `annotations`"),
        ('["a room"]', "entry 0 is not an object"),
        ('[{"image_id": 1, "caption": "a"}, {"image_id": 2}]', "entry 1 is not an object"),
        ('[{"image_id": 1.0, "caption": "a"}]', r"image_id must be a whole number or a file name, not 1\.0"),
        ('[{"image_id": true, "caption": "a"}]', "image_id must be .* not True"),
        ('[{"image_id": null, "caption": "a"}]', "image_id must be .* not None"),
        ('[{"image_id": 1, "caption": ["a"]}]', "the caption of 1 must be a text"),
        (
            json.dumps([{"image_id": i % 7, "caption": "a"} for i in range(14)]),
            "7 images have more than one caption: 0, 1, 2, 3, 4 and 2 more",
        ),
    ],
)
def test_a_file_that_is_no_results_file_is_one_clear_error(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CaptionerError, match=message) as caught:
        read_results(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('[{"image_id": 1, "caption": "a"}]', encoding="utf-8-sig")
    assert read_results(path) == {1: "a"}
