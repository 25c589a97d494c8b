from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from captioner.captioner import Captioner
from captioner.cli import main
from captioner.weights import read_header
from tests.bulk.folders import save_image

IMAGES = 60


@pytest.fixture(scope="module")
def dataset(captioner: Captioner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of which people say what the model says, or something else; more often the former the surer
    the model is."""
    folder = tmp_path_factory.mktemp("data")
    paths = [save_image(folder / f"{number}.png", number) for number in range(IMAGES)]
    best = [captions[0] for captions in captioner.caption(paths)]
    ranked = sorted(best, key=lambda caption: caption.log_prob / (len(caption.words) + 1))
    agreed = {id(caption) for place, caption in enumerate(ranked) if place % 5 != 0 and place >= IMAGES // 3}
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "caption", "split"))
        for path, caption in zip(paths, best, strict=True):
            said = caption.text if id(caption) in agreed else f"something else entirely {path.stem}"
            rows.writerow((path.name, said, "val"))
    return folder


def calibrate(dataset: Path, weights: Path, *flags: str | Path) -> int:
    model = ["--weights", weights, "--device", "cpu"]
    return main(["calibrate", "--dataset", f"table:{dataset}", *map(str, (*model, *flags))])


def test_from_calibrating_to_confidences(
    dataset: Path, checkpoint_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(checkpoint_file.read_bytes())
    assert calibrate(dataset, weights) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"table val: {IMAGES} images, ")
    assert shown.err.endswith(f"wrote {weights}\n")
    known = read_header(weights).calibration
    assert known is not None
    assert (known.photos, known.data) == (IMAGES, "table val")
    assert known.per_nat > 0

    assert main(["info", str(weights)]) == 0
    assert "\nconfidence:\n  meaning: probability that the caption's CIDEr-D" in capsys.readouterr().out

    sure = []
    for batch_size in ("1", "16"):
        output = tmp_path / f"{batch_size}.jsonl"
        flags = ["--weights", str(weights), "--device", "cpu", "--output", str(output), "--workers", "0"]
        names = [str(dataset / f"{number}.png") for number in range(8)]
        assert main(["caption", *names, *flags, "--batch-size", batch_size]) == 0
        sure.append([json.loads(line) for line in output.read_text().splitlines()])
    assert sure[0] == sure[1]
    assert all(list(record) == ["image", "caption", "log_prob", "confidence"] for record in sure[0])
    assert all(0 < record["confidence"] < 1 for record in sure[0])
    capsys.readouterr()
    assert main(["caption", names[0], *flags[:4], "--format", "jsonl", "--num-captions", "2"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["captions"][0]["confidence"] == record["confidence"]


def test_another_file_leaves_the_checkpoint_as_it_is(
    dataset: Path, checkpoint_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs the extra 'train'")
    before = checkpoint_file.read_bytes()
    output, plot = tmp_path / "new.safetensors", tmp_path / "plot.png"
    assert calibrate(dataset, checkpoint_file, "--output", output, "--plot", plot) == 0
    assert capsys.readouterr().err.endswith(f"wrote {output} and {plot}\n")
    assert checkpoint_file.read_bytes() == before
    assert read_header(output).calibration is not None
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_wrong_use_is_one_clear_line_and_nothing_is_written(
    dataset: Path, checkpoint_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    save_image(few / "0.png", 0)
    (few / "captions.csv").write_text("image,caption,split\n0.png,a dog,val\n")
    before = checkpoint_file.read_bytes()
    for data, flags, message in (
        (few, (), "table val: 1 images are too few"),
        (dataset, ("--split", "train"), "no captioned image in the split 'train'"),
        (dataset, ("--plot", "x.gif"), "--plot must end in"),
        (dataset, ("--output", tmp_path), "is a folder"),
    ):
        assert calibrate(data, checkpoint_file, *flags) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("captioner: error: ")
        assert message in said
    assert checkpoint_file.read_bytes() == before
