from __future__ import annotations

import csv
import json
import re
from itertools import product
from pathlib import Path

import pytest

from captioner.captioner import Captioner
from captioner.cli import main
from captioner.metadata import write_metadata
from captioner.weights import read_header
from tests.bulk.folders import save_image


def write_table(folder: Path, captioner: Captioner, first: int, beam_size: int) -> str:
    """Images of which people say what the model writes with some beam, without its first word."""
    folder.mkdir()
    paths = [save_image(folder / f"{number}.png", number) for number in range(first, first + 6)]
    options = captioner.options.from_dict(captioner.options.to_dict() | {"beam_size": beam_size})
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "caption", "split"))
        for path, (best, *_) in zip(paths, captioner.caption(paths, options), strict=True):
            rows.writerow((path.name, best.text, "val"))
    return f"table:{folder}"


@pytest.fixture(scope="module")
def tables(captioner: Captioner, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    return [write_table(folder / f"{first}", captioner, first, beam_size=4) for first in (0, 6)]


def tune(weights: Path, *flags: object) -> int:
    return main(["tune", "--weights", str(weights), "--device", "cpu", *map(str, flags)])


def test_the_best_of_all_combinations_becomes_the_default(
    tables: list[str], checkpoint_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(checkpoint_file.read_bytes())
    values = ("--beam-size", 1, 4, "--length-penalty", 0.7, 0, "--no-repeat-ngram", 3)
    assert tune(weights, "--dataset", *tables, *values) == 0
    printed = capsys.readouterr()
    assert printed.err.endswith(f"wrote {weights}\n")
    head, *rows = printed.out.splitlines()
    assert re.split("  +", head.strip()) == [
        *("beam size", "length penalty"),
        *("table BLEU-4", "table CIDEr", "table-2 BLEU-4", "table-2 CIDEr", "mean CIDEr"),
    ]
    cells = [row.split() for row in rows]
    assert [tuple(row[:2]) for row in cells] == list(product(("1", "4"), ("0.7", "0")))
    for row in cells:
        assert float(row[6]) == pytest.approx((float(row[3]) + float(row[5])) / 2, abs=0.11)
    # With the beam that the captions of people were written with, all are as people say.
    (best,) = (row for row in cells if row[-1] == "*")
    assert best[:2] == ["4", "0.7"]
    assert best[2] == best[4] == "100.0"
    decoding = read_header(weights).decoding
    assert (decoding.beam_size, decoding.length_penalty) == (4, 0.7)
    assert main(["info", str(weights)]) == 0
    assert "beam_size: 4" in capsys.readouterr().out


def test_consensus_is_tried_by_yes_and_no(
    tables: list[str], checkpoint_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "tuned.safetensors"
    flags = ("--beam-size", 4, "--consensus", "yes", "no", "--output", output)
    assert tune(checkpoint_file, "--dataset", *tables, *flags) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "consensus"
    assert [row.split()[0] for row in rows] == ["yes", "no"]
    assert rows[1].endswith("*")  # what "people say" was written without
    assert read_header(output).decoding.consensus is False
    with pytest.raises(SystemExit, match="2"):
        tune(checkpoint_file, "--dataset", *tables, "--consensus", "perhaps")
    assert "argument --consensus: must be yes or no, not 'perhaps'" in capsys.readouterr().err


def test_figures_are_those_of_evaluate(
    tables: list[str], checkpoint_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = checkpoint_file.read_bytes()
    assert tune(checkpoint_file, "--dataset", tables[0], "--beam-size", 2, "--dry-run") == 0
    assert checkpoint_file.read_bytes() == before
    (bleu, cider, mean, _) = capsys.readouterr().out.splitlines()[1].split()
    assert cider == mean
    flags = ["--weights", str(checkpoint_file), "--beam-size", "2", "--bootstrap", "0", "--json"]
    assert main(["evaluate", "--dataset", tables[0], "--split", "val", "--no-meteor", *flags]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert [bleu, cider] == [f"{100 * figures[name]:.1f}" for name in ("BLEU-4", "CIDEr")]


def test_a_confidence_does_not_outlive_the_options_it_was_learnt_with(
    tables: list[str], checkpoint_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rated = tmp_path / "rated.safetensors"
    known = {
        "intercept": 0.0, "per_nat": 1.0, "per_word": 0.0, "good": 0.4, "data": "x", "photos": 60,
        "base_rate": 0.5, "log_loss": 0.6, "brier": 0.2, "ece": 0.01,
    }  # fmt: skip
    write_metadata(checkpoint_file, rated, {"confidence": json.dumps(known)})
    assert read_header(rated).calibration is not None
    output = tmp_path / "tuned.safetensors"
    own = read_header(rated).decoding.beam_size
    assert tune(rated, "--dataset", tables[0], "--beam-size", own, "--output", output) == 0
    assert read_header(output).calibration is not None
    capsys.readouterr()
    assert tune(rated, "--dataset", tables[0], "--beam-size", 4, "--output", output) == 0
    assert "run captioner calibrate" in capsys.readouterr().err
    assert read_header(output).calibration is None
    assert read_header(rated).calibration is not None


def test_wrong_use_is_one_clear_line_and_nothing_is_written(
    tables: list[str], checkpoint_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "0.png").write_bytes(b"none")
    (broken / "captions.csv").write_text("image,caption,split\n0.png,a dog,val\n")
    before = checkpoint_file.read_bytes()
    for flags, message in (
        ((tables[0], "--beam-size", 0), "--beam-size must be"),
        ((tables[0], "--tag-threshold", 0.3), "this checkpoint has no classifier"),
        ((tables[0], "--split", "train"), "no captioned image in the split 'train'"),
        ((tables[0], "--output", tmp_path), "is a folder; name a file"),
        ((f"table:{broken}",), "1 images cannot be read"),
        ((f"table:{broken}", "--skip-missing"), "not one image can be read"),
    ):
        assert tune(checkpoint_file, "--dataset", *flags) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("captioner: error: ")
        assert message in said
    assert checkpoint_file.read_bytes() == before
