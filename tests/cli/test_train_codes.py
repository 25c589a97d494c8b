"""Training on ready-made vectors, and using what comes out, through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from captioner.captioner import Captioner
from captioner.checkpoint import load_checkpoint
from captioner.cli import main
from captioner.training import trainer
from captioner.training.folder import Log
from captioner.weights import read_header
from tests.training import shapes
from tests.vectors import KINDS, fake_codes, write_codes

TINY = [
    "--hidden-size=32",
    "--embedding-size=32",
    "--min-count=1",
    "--dropout=0",
    "--label-smoothing=0",
    "--batch-size=8",
    "--lr=0.02",
    "--device=cpu",
    "--precision=auto",
    "--patience=0",
    "--beam-size=1",
]
SIZE = 64


class Course(NamedTuple):
    """Course files and the model that was trained on them."""

    codes: Path
    captions: Path
    weights: Path

    @property
    def flags(self) -> list[str]:
        return ["--dataset=codes", f"--codes={self.codes}", f"--captions={self.captions}"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Log, "_plot", lambda _journal: None)
    monkeypatch.setattr(trainer, "graphs_of", lambda *_, **__: None)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    folder = tmp_path_factory.mktemp("course")
    codes, captions = write_codes(folder, 80)
    course = Course(codes, captions, folder / "course.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Log, "_plot", lambda _journal: None)
        patch.setattr(trainer, "graphs_of", lambda *_, **__: None)
        flags = ["--holdout=0.2", "--epochs=6", "--output", str(course.weights)]
        assert main(["train", *course.flags, *TINY, *flags]) == 0
    return course


@pytest.fixture
def error(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must end in one clear line, and gives the line."""

    def run(*arguments: str | Path) -> str:
        assert main([*map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        lines = [line for line in captured.err.splitlines() if line.startswith("captioner: error: ")]
        assert len(lines) == 1
        assert "Traceback" not in captured.err
        return lines[0]

    return run


def test_a_decoder_learns_what_the_vectors_stand_for(course: Course) -> None:
    captioner = Captioner.load(course.weights, device="cpu")
    for kind, vector in zip(KINDS, fake_codes(len(KINDS), seed=99), strict=True):
        ((best,),) = captioner.decode(torch.from_numpy(vector)[None])
        assert " ".join(kind) in best.text


def test_the_checkpoint_tells_how_it_was_trained(course: Course) -> None:
    header = read_header(course.weights)
    assert header.config.encoder == "none"
    assert header.config.channels == 12
    assert header.training["datasets"]["holdout"] == 0.2  # type: ignore[index]
    options = header.training["options"]
    assert options["encoder"] == "none"  # type: ignore[index]
    assert options["precision"] in ("fp32", "bf16")  # type: ignore[index]
    assert header.training["data"]["validation"] == ["codes: 16 photos"]  # type: ignore[index]


def test_info_says_that_there_is_no_encoder(course: Course, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(course.weights)]) == 0
    assert "encoder: none; captions vectors of 12 features" in capsys.readouterr().out


def test_its_configuration_trains_the_same_model_again(
    course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", "--config", str(course.weights)]) == 0
    text = capsys.readouterr().out
    assert '\noutput = "course.safetensors"\n' in text
    (tmp_path / "again.toml").write_text(text)
    again = tmp_path / "again.safetensors"
    flags = ["--config", str(tmp_path / "again.toml"), "--device=cpu", "--output", str(again)]
    assert main(["train", *flags]) == 0
    capsys.readouterr()
    weights, same = (load_checkpoint(path).network.state_dict() for path in (course.weights, again))
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert main(["info", "--config", str(again)]) == 0
    assert capsys.readouterr().out == text.replace("course.safetensors", "again.safetensors")


def test_vectors_are_captioned_row_by_row(course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    array = fake_codes(5, seed=7)
    array[3, 0] = np.nan
    np.save(tmp_path / "new.npy", array)
    flags = ["--weights", str(course.weights), "--device=cpu", "--batch-size=2", "--quiet"]
    assert main(["caption", str(tmp_path / "new.npy"), *flags]) == 1
    captured = capsys.readouterr()
    captioner = Captioner.load(course.weights, device="cpu")
    sound = [0, 1, 2, 4]
    expected = [captions[0].text for captions in captioner.decode(torch.from_numpy(array[sound]))]
    assert captured.out.splitlines() == [
        f"{tmp_path / 'new.npy'}#{row}\t{text}" for row, text in zip(sound, expected, strict=True)
    ]
    assert captured.err.splitlines() == [
        f"captioner: {tmp_path / 'new.npy'}#3: holds values that are infinite or not numbers"
    ]
    assert main(["caption", str(tmp_path / "new.npy"), "--format=jsonl", *flags]) == 1
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["image"] for record in records] == [f"{tmp_path / 'new.npy'}#{row}" for row in range(5)]
    assert [record.get("caption") for record in records] == [*expected[:3], None, expected[3]]
    assert "error" in records[3]


def test_it_is_evaluated_on_vectors(course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--weights", str(course.weights), "--device=cpu", "--json", "--holdout=0.2"]
    report = tmp_path / "report.html"
    assert main(["evaluate", *course.flags, *flags, "--report", str(report)]) == 0
    told = json.loads(capsys.readouterr().out)
    best = read_header(course.weights).training["validation"]
    assert told["CIDEr"] == pytest.approx(best["codes CIDEr"], abs=0.01)  # type: ignore[index]
    assert report.exists()


def test_it_says_that_it_cannot_caption_images(
    course: Course, error: Callable[..., str], images: list[Path], tmp_path: Path
) -> None:
    hint = "images only when --encoder NAME says what made the vectors"
    assert hint in error("caption", images[0], "--weights", course.weights)
    shapes.write_table(tmp_path, 2, 2)
    assert hint in error("evaluate", "--dataset", f"table:{tmp_path}", "--weights", course.weights)
    wrong = error("caption", images[0], "--weights", course.weights, "--encoder=efficientnet_lite0")
    assert "gives vectors of 1280 features, the checkpoint was trained on 12; another encoder" in wrong


def test_vectors_of_other_length_are_refused(course: Course, error: Callable[..., str], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", fake_codes(3, 5))
    said = error("caption", tmp_path / "x.npy", "--weights", course.weights)
    assert "x.npy: has 5 features a vector, the checkpoint takes 12" in said


def test_an_encoder_that_is_named_in_training_goes_into_the_checkpoint(
    tmp_path: Path, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_codes(tmp_path, 16, channels=1280)
    weights = tmp_path / "seeing.safetensors"
    flags = ["--encoder=efficientnet_lite0", f"--image-size={SIZE}", "--epochs=1", "--output", str(weights)]
    assert main(["train", f"--dataset=codes:{tmp_path}", "--holdout=0.25", *TINY, *flags]) == 0
    capsys.readouterr()
    for what, name in (
        (images[0], images[0]),
        (tmp_path / "image_codes.npy", f"{tmp_path}/image_codes.npy#0"),
    ):
        assert main(["caption", str(what), "--weights", str(weights), "--device=cpu"]) == 0
        assert capsys.readouterr().out.startswith(f"{name}\t")


def test_regions_are_attended_to(tmp_path: Path) -> None:
    write_codes(tmp_path, 16, regions=3)
    weights = tmp_path / "regions.safetensors"
    flags = ["--attention=additive", "--attention-size=8", "--epochs=1", "--output", str(weights)]
    assert main(["train", f"--dataset=codes:{tmp_path}", "--holdout=0.25", *TINY, *flags]) == 0
    assert load_checkpoint(weights).network.config.attention == "additive"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--attention=additive"], "looks at regions, but"),
        (["--encoder=efficientnet_lite0", "--image-size=64"], "makes 4 regions of 1280 features, but"),
        (["--image-size=64"], "say with --encoder which it is"),
        (["--finetune-from=all"], "--finetune-from needs images"),
        (["--holdout=0"], "no captioned image in the split 'val'"),
    ],
)
def test_what_vectors_cannot_do_is_refused(
    course: Course, error: Callable[..., str], tmp_path: Path, flags: list[str], message: str
) -> None:
    output = tmp_path / "x.safetensors"
    assert message in error("train", *course.flags, *TINY, *flags, "--output", output)
    assert not output.exists()


def test_images_need_an_encoder(error: Callable[..., str]) -> None:
    said = error("train", "--dataset=table:D", "--encoder=none", "--output=x.safetensors")
    assert "--encoder none is for --dataset codes" in said


def test_vectors_without_numbers_stop_the_run_or_are_left_out(
    error: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes, _ = write_codes(tmp_path, 16)
    array = np.load(codes)
    array[5, 3] = np.nan
    np.save(codes, array)
    command = ["train", f"--dataset=codes:{tmp_path}", *TINY, "--epochs=1", "--holdout=0.25"]
    command += ["--output", str(tmp_path / "x.safetensors")]
    said = error(*command)
    assert "1 of 16 images are broken" in said
    assert "image_codes.npy#5: holds values that are infinite or not numbers; give --skip-missing" in said
    assert main([*command, "--skip-missing"]) == 0
    assert "broken photos: 1" in capsys.readouterr().err
