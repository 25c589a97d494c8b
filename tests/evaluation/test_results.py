from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.cli import main
from captioner.datasets import Record
from captioner.errors import CaptionerError, EvaluationError
from captioner.evaluation.captions import HumanCaptions, read_annotations, read_results, write_results
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


ROWS = [{"image": "in/a.jpg", "caption": "a cat"}, {"image": "in/b.jpg", "error": "in/b.jpg: broken"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("out.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS)),
        ("out.json", "".join(json.dumps(row) + "\n" for row in ROWS)),
        ("out.txt", "".join(json.dumps(row) + "\n" for row in reversed(ROWS))),
        ("out.jsonl", '{"log_prob": -1.5, "caption": "a cat", "image": "in/a.jpg"}\n\n'),
        ("out.csv", "image,caption,log_prob,error\r\nin/a.jpg,a cat,-1.5,\r\nin/b.jpg,,,in/b.jpg: broken\r\n"),
        ("out.csv", "\ufeffimage,caption\nin/a.jpg,a cat\n"),
        ("list.json", '[{"image": "in/a.jpg", "caption": "a cat"}]'),
    ],
)
def test_what_captioner_wrote_itself_is_read(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert read_results(tmp_path / name) == {"in/a.jpg": "a cat"}


@pytest.mark.parametrize("name", ["out.csv", "out.txt", "out.csv.gz"])
def test_a_table_of_ids_is_read(tmp_path: Path, name: str) -> None:
    data = "\ufeffimage_id,caption\r\n1,a dog\r\n2,a cat\r\n,\r\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert HUMAN.by_id(read_results(tmp_path / name), name) == {1: "a dog", 2: "a cat"}


def test_lines_with_numbers_are_read_and_an_image_twice_is_told(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_text('{"image_id": 1, "caption": "a"}\n{"image_id": 2, "caption": "b"}\n')
    assert read_results(file) == {1: "a", 2: "b"}
    file.write_text('{"image": "a.jpg", "caption": "a"}\n{"image": "a.jpg", "caption": "b"}\n')
    with pytest.raises(CaptionerError, match=r"1 images have more than one caption: 'a\.jpg'"):
        read_results(file)
    file.write_text('{"image": "a.jpg", "caption": "a"}\n{"image": "b.j')
    with pytest.raises(CaptionerError, match=r"out\.jsonl: line 2 is not valid JSON"):
        read_results(file)


HUMAN = HumanCaptions(
    {1: ["a"], 2: ["b"], 3: ["c"], 0: ["d"]}, {}, names={1: "cam1/x.jpg", 2: "cam2/x.jpg", 3: "y.jpg", 0: "z.jpg"}
)


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        ({1: "a", 3: "c"}, {1: "a", 3: "c"}),
        ({"in/cam1/x.jpg": "a", "./cam2/x.jpg": "b"}, {1: "a", 2: "b"}),
        ({"/data/in/cam1/../cam2/x.jpg": "b", "y.jpg": "c", "in/z.jpg": "d"}, {2: "b", 3: "c", 0: "d"}),
        ({"t.tar/cam1/x.jpg": "a", 2: "b"}, {1: "a", 2: "b"}),
        ({"cam3/x.jpg": "a"}, {"cam3/x.jpg": "a"}),
        ({"1": "a", 3: "c", "in/z.jpg": "d", 9: "e"}, {1: "a", 3: "c", 0: "d", 9: "e"}),
    ],
)
def test_captions_by_paths_are_taken_to_ids(captions: dict[int | str, str], expected: dict[int | str, str]) -> None:
    assert HUMAN.by_id(captions, "out.jsonl") == expected


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ({"x.jpg": "a"}, "out.jsonl: x.jpg may be cam1/x.jpg or cam2/x.jpg; write its folders too"),
        ({"y.jpg": "a", "./y.jpg": "b"}, r"out.jsonl: the image 3 has two captions, one by the name \./y.jpg"),
        ({3: "a", "3": "b"}, "out.jsonl: the image 3 has two captions, one by the name 3"),
        ({3: "a", "in/y.jpg": "b"}, "out.jsonl: the image 3 has two captions, one by the name in/y.jpg"),
    ],
)
def test_a_path_that_leaves_it_open_is_told(captions: dict[int | str, str], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        HUMAN.by_id(captions, "out.jsonl")


def test_paths_of_a_data_set_are_those_below_the_folder_of_all(tmp_path: Path) -> None:
    names = ("images/cam1/x.jpg", "images/cam2/x.jpg")
    human = HumanCaptions.from_records([Record(i, tmp_path / name, ("a",), "val") for i, name in enumerate(names)])
    assert human.by_id({"photos/cam2/x.jpg": "b", "cam1/x.jpg": "a"}, "out") == {1: "b", 0: "a"}


def test_images_of_one_name_are_shown_in_a_report_each_from_its_folder(tmp_path: Path) -> None:
    for place in ("in/cam1", "in/cam2", "in"):
        (tmp_path / place).mkdir(exist_ok=True, parents=True)
        (tmp_path / place / "x.jpg").touch()
    file = tmp_path / "captions.json"
    images = [{"id": i, "file_name": f"cam{i}/x.jpg"} for i in (1, 2)]
    file.write_text(json.dumps({"images": images, "annotations": [{"image_id": i, "caption": "a"} for i in (1, 2)]}))
    places = {i: tmp_path / "in" / f"cam{i}" / "x.jpg" for i in (1, 2)}
    assert read_annotations(file, tmp_path / "in").images == places
    inner = read_annotations(file, tmp_path / "in" / "cam1").images
    assert inner[1] == places[1]
    assert not inner[2].exists()


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_a_run_is_evaluated_and_compared_from_its_own_output(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations, results = write_coco(tmp_path), tmp_path / "results.json"
    write_results(results, CAPTIONS)
    rows = [{"image": f"elsewhere/{i:012}.png", "caption": text, "log_prob": -1} for i, text in CAPTIONS.items()]
    if name.endswith("csv"):
        lines = ["image,caption,log_prob,error", *(f"{row['image']},{row['caption']},-1," for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    flags = ["--annotations", str(annotations), "--json"]
    printed = []
    for file in (results, tmp_path / name):
        assert main(["evaluate", "--predictions", str(file), *flags, "--bootstrap", "0", "--no-meteor"]) == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert printed[0] == printed[1]
    assert main(["compare", str(results), str(tmp_path / name), *flags, "--bootstrap", "10"]) == 0
    assert json.loads(capsys.readouterr().out)["contrasts"] == []
