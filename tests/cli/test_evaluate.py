from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from captioner.cli import main
from captioner.metrics.coco import DocumentFrequencies
from captioner.metrics.evaluate import METRICS
from tests.evaluation.small import CAPTIONS, REFERENCES, ColourCaptioner, write_coco, write_results_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Run: TypeAlias = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``captioner evaluate`` and returns exit code, standard output and standard error."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(["evaluate", "--no-meteor", "--bootstrap", "20", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def captioner(monkeypatch: pytest.MonkeyPatch) -> ColourCaptioner:
    """The captioner that the command loads."""
    import captioner.captioner as service

    fake = ColourCaptioner()

    def load(weights: str | None = None, **where: Any) -> ColourCaptioner:
        return fake

    monkeypatch.setattr(service.Captioner, "load", load)
    return fake


def test_scores_a_results_file(tmp_path: Path, run: Run) -> None:
    annotations = write_coco(tmp_path)
    predictions = write_results_file(tmp_path / "results.json", CAPTIONS)
    code, out, _ = run("--predictions", predictions, "--annotations", annotations, "--json")
    found = json.loads(out)
    assert code == 0
    assert out.count("\n") == 1
    assert set(METRICS) <= set(found)
    assert (found["scale"], found["images"], found["references"]) == ("0-1", 6, 18)
    assert "|images:6 of 6|" in found["signature"]


def test_json_holds_a_cross_check_of_bleu_and_a_difference_is_told(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations = write_coco(tmp_path)
    captions = {name: texts[0] for name, texts in REFERENCES.items()}
    predictions = write_results_file(tmp_path / "results.json", captions)
    flags = ("--predictions", predictions, "--annotations", annotations, "--no-meteor", "--json")
    _, out, err = run(*flags)
    found = json.loads(out)
    assert found["cross_check"]["nltk_bleu_4"] == pytest.approx(found["BLEU-4"], abs=1e-8)
    assert "warning" not in err
    monkeypatch.setattr("nltk.translate.bleu_score.corpus_bleu", lambda *_: 0.25)
    code, out, err = run(*flags)
    assert code == 0
    assert json.loads(out)["cross_check"]["nltk_bleu_4"] == 0.25
    assert "captioner: warning: BLEU-4 differs by " in err


def test_writes_the_scores_of_every_image(tmp_path: Path, run: Run) -> None:
    annotations, table = write_coco(tmp_path), tmp_path / "scores.json"
    captions = {**CAPTIONS, 60: "half a \ud83d caf\u00e9"}
    predictions = write_results_file(tmp_path / "results.json", captions)
    code, out, _ = run("--predictions", predictions, "--annotations", annotations, "--per-image", table, "--json")
    assert code == 0
    content = table.read_text(encoding="utf-8")
    assert "café" in content
    records = json.loads(content)
    assert {record["image_id"]: record["caption"] for record in records} == captions
    assert all(set(METRICS) <= set(record) for record in records)
    for name in ("ROUGE-L", "CIDEr"):
        mean = sum(record[name] for record in records) / len(records)
        assert mean == pytest.approx(json.loads(out)[name])


def test_prints_a_table_for_people(tmp_path: Path, run: Run) -> None:
    annotations = write_coco(tmp_path)
    predictions = write_results_file(tmp_path / "results.json", CAPTIONS)
    code, out, _ = run("--predictions", predictions, "--annotations", annotations)
    assert code == 0
    assert "x100" in out
    assert "signature: captioner:" in out


def test_a_subset_says_how_many_of_how_many(tmp_path: Path, run: Run) -> None:
    annotations = write_coco(tmp_path)
    predictions = write_results_file(tmp_path / "results.json", {i: CAPTIONS[i] for i in (20, 30)})
    code, _, err = run("--predictions", predictions, "--annotations", annotations)
    assert code == 2
    assert "results.json: 4 of 6 images have no caption: 10, 40, 50, 60 (--subset" in err
    code, out, _ = run("--predictions", predictions, "--annotations", annotations, "--subset")
    assert code == 0
    assert "2 of 6 images, 6 references" in out
    assert "|images:2 of 6|" in out


def test_scores_against_images_with_names(tmp_path: Path, run: Run) -> None:
    table = tmp_path / "captions.csv"
    rows = [f'{i}.jpg,"{text}",val' for i, texts in REFERENCES.items() for text in texts]
    table.write_text("\n".join(["image,caption,split", *rows]), encoding="utf-8")
    predictions = write_results_file(tmp_path / "results.json", {f"{i}.jpg": c for i, c in CAPTIONS.items()})
    code, out, _ = run("--predictions", predictions, "--dataset", "table", "--data", tmp_path)
    assert code == 0
    assert "6 images, 18 references" in out
    assert "|data:table val|" in out


def test_captions_a_data_set_and_writes_what_scores_the_same(
    tmp_path: Path, run: Run, captioner: ColourCaptioner
) -> None:
    annotations = write_coco(tmp_path)
    dataset = ("--dataset", "coco", "--images", tmp_path / "val2017", "--annotations", annotations)
    output, report = tmp_path / "results.json", tmp_path / "report.html"
    code, out, err = run(
        *dataset, "--json", "--output", output, "--report", report, "--batch-size", "4", "--beam-size", "5"
    )
    assert code == 0
    assert "6/6" in err
    assert captioner.batches == [4, 2]
    assert {options.beam_size for options in captioner.decoded if options} == {5}
    found = json.loads(out)
    assert f"|checkpoint:{captioner.digest}|" in found["signature"]
    assert "|precision:bfloat16|" in found["signature"]
    assert "beam_size=5" in found["signature"]
    assert [entry["image_id"] for entry in json.loads(output.read_text())] == list(CAPTIONS)
    assert report.read_text(encoding="utf-8").count("<img") == 6
    _, again, _ = run("--predictions", output, "--annotations", annotations, "--json")
    assert {name: json.loads(again)[name] for name in METRICS} == {name: found[name] for name in METRICS}


def test_absent_and_broken_images_are_an_error_or_said_in_result_and_signature(
    tmp_path: Path, run: Run, captioner: ColourCaptioner
) -> None:
    annotations = write_coco(tmp_path)
    dataset = ("--dataset", "coco", "--images", tmp_path / "val2017", "--annotations", annotations)
    (tmp_path / "val2017" / f"{20:012}.png").unlink()
    (tmp_path / "val2017" / f"{30:012}.png").write_bytes(b"broken")
    code, _, err = run(*dataset)
    assert code == 2
    assert "1 of 6 images are absent" in err
    code, out, _ = run(*dataset, "--skip-missing")
    assert code == 0
    assert "4 of 6 images (1 absent, 1 unreadable: skipped), 12 references" in out
    assert "|images:4 of 6|absent:1|unreadable:1|" in out


def test_a_limit_captions_the_first_images(tmp_path: Path, run: Run, captioner: ColourCaptioner) -> None:
    annotations = write_coco(tmp_path)
    code, out, _ = run("--dataset", "coco", "--data", tmp_path, "--annotations", annotations, "--limit", "3")
    assert code == 0
    assert captioner.batches == [3]
    assert "3 of 6 images, 9 references" in out


def test_document_frequencies_may_come_from_another_set(tmp_path: Path, run: Run) -> None:
    annotations = write_coco(tmp_path)
    table = tmp_path / "table.json"
    code, out, _ = run("--annotations", annotations, "--save-document-frequencies", table)
    assert code == 0
    assert "document frequencies of 6 images" in out
    assert DocumentFrequencies.load(table).counts["square",] == 6
    predictions = write_results_file(tmp_path / "results.json", {10: CAPTIONS[10]})
    alone = ("--predictions", predictions, "--annotations", annotations, "--subset", "--json")
    assert json.loads(run(*alone)[1])["CIDEr"] == 0.0
    found = json.loads(run(*alone, "--document-frequencies", table)[1])
    assert found["CIDEr"] > 0
    assert "|frequencies:table of 6 images sha256:" in found["signature"]


def test_novelty_compares_with_the_train_split(tmp_path: Path, run: Run) -> None:
    table = tmp_path / "captions.csv"
    rows = [
        "1.jpg,A red square,val",
        "2.jpg,A green wall,val",
        "3.jpg,a red square!,train",
        "4.jpg,nothing,train",
    ]
    table.write_text("\n".join(["image,caption,split", *rows]), encoding="utf-8")
    predictions = write_results_file(tmp_path / "r.json", {"1.jpg": "a red square", "2.jpg": "a green square"})
    code, out, _ = run("--predictions", predictions, "--dataset", "table", "--data", tmp_path, "--novelty", "--json")
    assert code == 0
    assert json.loads(out)["diversity"]["unseen"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --dataset to caption its images, or --predictions"),
        (("--predictions", "R"), "give --annotations FILE, or --dataset"),
        (
            ("--predictions", "R", "--annotations", "A", "--output", "x"),
            "--output is about captioning images",
        ),
        (("--predictions", "R", "--annotations", "A", "--beam-size", "2"), "--beam-size is about captioning"),
        (("--predictions", "R", "--annotations", "A", "--limit", "2"), "--limit is about captioning images"),
        (("--predictions", "R", "--annotations", "A", "--novelty"), "--novelty needs --dataset"),
        (("--predictions", "A", "--annotations", "A"), "an annotations file, not results"),
        (("--predictions", "R", "--annotations", "R"), "a results file, not annotations"),
        (("--predictions", "absent.json", "--annotations", "A"), "there is no such file"),
        (
            ("--predictions", "R", "--annotations", "A", "--report", "absent/r.html"),
            "there is no folder absent",
        ),
        (
            ("--dataset", "coco", "--annotations", "A", "--output", "."),
            "--output .: is a folder",
        ),
        (("--predictions", "R", "--annotations", "A", "--seed", "-1"), "--seed must be at least 0"),
        (("--dataset", "coco", "--annotations", "A", "--subset"), "--subset goes with --predictions"),
        (("--predictions", "R", "--annotations", "A", "--bootstrap", "-1"), "--bootstrap must be at least 0"),
        (("--predictions", "R", "--annotations", "A", "--document-frequencies", "A"), "no table of document"),
    ],
)
def test_wrong_use_is_one_clear_line(tmp_path: Path, run: Run, arguments: tuple[str, ...], message: str) -> None:
    files = {"A": write_coco(tmp_path), "R": write_results_file(tmp_path / "results.json", CAPTIONS)}
    code, out, err = run(*(files.get(argument, argument) for argument in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("captioner: error: ")
    assert err.count("\n") == 1
