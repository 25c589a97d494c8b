from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from captioner.cli import main
from tests.evaluation.small import CAPTIONS, write_coco, write_results_file

if TYPE_CHECKING:
    from pathlib import Path

WORSE = {**CAPTIONS, 50: "nothing of the kind"}


def test_prints_differences_p_values_and_the_images_that_differ_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = write_coco(tmp_path)
    first = write_results_file(tmp_path / "a.json", CAPTIONS)
    second = write_results_file(tmp_path / "b.json", WORSE)
    code = main(["compare", str(first), str(second), "--annotations", str(annotations), "--top", "1"])
    out = capsys.readouterr().out
    assert code == 0
    assert "B - A" in out
    assert "  B    0.0  nothing of the kind" in out
    assert out.count("|captions:sha256:") == 2


def test_prints_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = write_coco(tmp_path)
    first = write_results_file(tmp_path / "a.json", CAPTIONS)
    second = write_results_file(tmp_path / "b.json", WORSE)
    flags = ["--json", "--seed", "5", "--bootstrap", "30"]
    assert main(["compare", str(first), str(second), "--annotations", str(annotations), *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["scale"] == "0-1"
    assert found["bootstrap"] == {"resamples": 30, "seed": 5}
    assert found["differences"]["CIDEr"]["difference"] < 0
    assert found["contrasts"][0]["image_id"] == 50


@pytest.mark.parametrize(
    ("second", "flags", "message"),
    [
        ({**WORSE, 7: "a"}, [], "b.json: 1 captions are of images without references: 7"),
        ({10: "a"}, [], "b.json: 5 of 6 images have no caption"),
        ({10: "a"}, ["--subset"], "5 images have a caption in one of the two files only"),
        (WORSE, ["--bootstrap", "0"], "--bootstrap must be at least 1"),
        (WORSE, ["--top", "-1"], "--top and --seed must be at least 0"),
    ],
)
def test_wrong_use_is_one_clear_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    second: dict[int, str],
    flags: list[str],
    message: str,
) -> None:
    annotations = write_coco(tmp_path)
    files = [
        write_results_file(tmp_path / "a.json", CAPTIONS),
        write_results_file(tmp_path / "b.json", second),
    ]
    assert main(["compare", *map(str, files), "--annotations", str(annotations), *flags]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
