"""Everything but training works where torch is not installed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bulk.folders import save_image
from tests.light.conftest import DOGS, SAID, Run, write_table
from tests.light.installing import run


def test_one_image(captioner: Run, photos: Path) -> None:
    image = photos / "dogs.jpg"
    done = captioner("caption", image, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{image}\t{DOGS}\n", "")


def test_a_folder_is_captioned_and_resumed(captioner: Run, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "captions.jsonl"
    for _ in range(2):
        assert captioner("caption", photos, "--output", output, "--workers", "1").returncode == 0
        records = [json.loads(line) for line in output.read_text().splitlines()]
        assert [Path(record["image"]).name for record in records] == sorted(SAID)
    assert records[-1]["caption"] == DOGS
    assert 0 < records[-1]["confidence"] < 1


def test_a_table(captioner: Run, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "captions.csv"
    assert captioner("caption", photos, "--output", output).returncode == 0
    assert {row["caption"] for row in csv.DictReader(output.read_text().splitlines())} > {DOGS}


def test_a_sheet(captioner: Run, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "sheet.html"
    assert captioner("caption", photos, "--output", output).returncode == 0
    assert output.read_text().count("<img") == len(SAID)
    assert DOGS in output.read_text()


def test_results_as_coco_has_them(captioner: Run, photos: Path, tmp_path: Path) -> None:
    output, annotations = tmp_path / "results.json", tmp_path / "annotations.json"
    annotations.write_text(
        json.dumps({"images": [{"id": place, "file_name": name} for place, name in enumerate(SAID)]})
    )
    done = captioner("caption", photos, "--format", "coco", "--annotations", annotations, "--output", output)
    assert done.returncode == 0, done.stderr
    results = {entry["image_id"]: entry["caption"] for entry in json.loads(output.read_text())}
    assert sorted(results) == list(range(len(SAID)))
    assert results[list(SAID).index("dogs.jpg")] == DOGS


def test_captions_inside_the_images(captioner: Run, photos: Path, tmp_path: Path) -> None:
    assert captioner("caption", photos, "--embed", "--output", tmp_path / "out").returncode == 0
    assert DOGS.encode() in (tmp_path / "out" / "dogs.jpg").read_bytes()


def test_alt_texts_of_a_web_page(captioner: Run, photos: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(f"<p>\r\n<img src='{(photos / 'dogs.jpg').as_uri()}'>\r\n".encode())
    done = captioner("alt", page, "--in-place")
    assert (done.returncode, done.stderr) == (0, "captioner: 1 page: 1 written\n")
    assert page.read_bytes() == f"<p>\r\n<img alt=\"{DOGS}\" src='{(photos / 'dogs.jpg').as_uri()}'>\r\n".encode()


def test_sampled_captions_follow_their_seed(captioner: Run, photos: Path) -> None:
    command = ["caption", photos / "cat.jpg", "--temperature", "1.2", "--num-captions", "4", "--quiet"]
    first, again, other = (captioner(*command, "--seed", seed) for seed in (1, 1, 2))
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == again.stdout
    assert first.stdout != other.stdout


def test_an_ensemble(captioner: Run, photos: Path) -> None:
    weights = Path(__file__).parents[2] / "weights" / "captioner.safetensors"
    done = captioner("caption", photos / "dogs.jpg", "--weights", weights, weights)
    assert (done.returncode, done.stdout.split("\t")[1:]) == (0, [f"{DOGS}\n"])


def test_scores_and_ranks(captioner: Run, photos: Path) -> None:
    done = captioner("score", photos / "dogs.jpg", DOGS, "--json", "--runners-up", "2")
    record = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert record["log_prob"] == pytest.approx(sum(record["word_log_probs"]) + record["end_log_prob"], abs=1e-4)
    texts = ["a plate of food on a table", "a brown dog is jumping over a wooden fence"]
    done = captioner("rank", photos / "dogs.jpg", given="\n".join(texts))
    assert [line.split(maxsplit=2)[-1] for line in done.stdout.splitlines()] == texts[::-1]


def test_searches_a_folder(captioner: Run, photos: Path, tmp_path: Path) -> None:
    command = ["search", photos, "a dog jumping over a fence", "--cache", tmp_path / "cache"]
    for more in (["--json"], ["--json", "--html", tmp_path / "found.html"]):
        done = captioner(*command, *more)
        assert (done.returncode, Path(json.loads(done.stdout)["matches"][0]["image"]).name) == (0, "dogs.jpg")
    assert "dogs.jpg" in (tmp_path / "found.html").read_text()


def test_explains(captioner: Run, photos: Path, tmp_path: Path) -> None:
    done = captioner("explain", photos / "dogs.jpg", "-o", tmp_path / "explained.png")
    assert (done.returncode, done.stdout) == (0, f"{DOGS}\n")
    with Image.open(tmp_path / "explained.png") as drawn:
        assert np.asarray(drawn).std() > 0


def test_evaluates_compares_and_finds_again(captioner: Run, table: str, tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    data = ["--dataset", table, "--split", "val"]
    done = captioner("evaluate", *data, "--output", output, "--json", "--bootstrap", "20")
    assert done.returncode == 0
    assert json.loads(done.stdout)["cross_check"]["difference"] == pytest.approx(0, abs=1e-8)
    annotations = tmp_path / "annotations.json"
    entries = json.loads(output.read_text())
    references = [{"id": number, **entry} for number, entry in enumerate(entries)]
    numbers = {"images": [{"id": entry["image_id"]} for entry in entries], "annotations": references}
    annotations.write_text(json.dumps(numbers))
    done = captioner("compare", output, output, "--annotations", annotations, "--bootstrap", "20", "--json")
    assert (done.returncode, json.loads(done.stdout)["differences"]["CIDEr"]["difference"]) == (0, 0)
    done = captioner("retrieval", *data, "--json", "--cache", tmp_path / "cache")
    assert (done.returncode, json.loads(done.stdout)["recall@10"]) == (0, 1)


def test_tunes(captioner: Run, table: str, tmp_path: Path) -> None:
    output = tmp_path / "tuned.safetensors"
    done = captioner(
        *("tune", "--dataset", table, "--output", output, "--beam-size", "1", "2", "--consensus", "yes", "no")
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith(f"wrote {output}\n")
    assert captioner("caption", "--weights", output, Path(table.removeprefix("table:")) / "cat.jpg").returncode == 0


def test_calibrates(captioner: Run, tmp_path: Path) -> None:
    paths = [save_image(tmp_path / f"{number}.png", number) for number in range(60)]
    written = json.loads(f"[{','.join(captioner('caption', *paths, '--format', 'jsonl').stdout.splitlines())}]")
    rows = [
        (path.name, record["caption"] if number % 3 else f"something else entirely {number}")
        for number, (path, record) in enumerate(zip(paths, written, strict=True))
    ]
    output = tmp_path / "calibrated.safetensors"
    done = captioner("calibrate", "--dataset", write_table(tmp_path, rows), "--split", "val", "--output", output)
    assert done.returncode == 0, done.stderr
    assert json.loads(captioner("info", output, "--json").stdout)["confidence"]


def test_says_what_a_checkpoint_holds(captioner: Run) -> None:
    done = captioner("info", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["model"]["attention"] == "adaptive"


def test_merges(captioner: Run, photos: Path, tmp_path: Path) -> None:
    shards = [tmp_path / f"{number}.jsonl" for number in (1, 2)]
    for number, shard in enumerate(shards, start=1):
        done = captioner("caption", photos, "--shard", f"{number}/2", "--output", shard, "--workers", "0")
        assert done.returncode == 0, done.stderr
    done = captioner("merge", *shards, "--output", tmp_path / "all.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == len(SAID)


def test_from_python(light: dict[str, str], photos: Path) -> None:
    code = (
        "import sys, captioner\n"
        "model = captioner.load()\n"
        "images = list(captioner.find_images([sys.argv[1]]))\n"
        "for captions in model.caption(images): print(captions[0].text)\n"
        "print(sum(1 for _ in captioner.caption_paths(model, images, model.options)))\n"
        "print(model.options.beam_size, captioner.tokenize('A dog.'), captioner.Vocabulary.__name__)\n"
    )
    done = run("-c", code, photos, environment=light)
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, len(SAID) + 2), done.stderr
    assert lines[sorted(SAID).index("dogs.jpg")] == DOGS
    assert lines[len(SAID)] == str(len(SAID))
