from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from captioner.cli import main

SMALL = ["--hidden-size", "16", "--length", "6", "--sequences", "4"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def data(folder: Path, images: list[Path]) -> list[str]:
    """Three images with captions of 5, 3 and 2 words, and one that is broken, at the end of the ranking."""
    for image in images[:3]:
        shutil.copy(image, folder)
    (folder / "broken.jpg").write_bytes(b"no image")
    lines = ["image,caption,split"]
    for name, caption in zip(
        [*(image.name for image in images[:3]), "broken.jpg"],
        ["a dog runs on grass", "two men sit", "a beach", "water"],
        strict=True,
    ):
        lines += [f"{name},{caption},val", f"{name},a,val"]
    (folder / "captions.csv").write_text("\n".join(lines))
    return ["--dataset", "table", "--annotations", "captions.csv", "--images", ".", "--cache", "cache"]


def test_fresh_cells_are_printed_written_and_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradients", "--cell", "rnn", "lstm", *SMALL]) == 0
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()] == ["lag", "rnn", "lstm"]
    assert captured.err == "wrote gradients.csv and gradients.png\n"
    found = rows(folder / "gradients.csv")
    assert [(row["model"], int(row["lag"])) for row in found] == [
        (model, lag) for model in ("rnn", "lstm") for lag in range(7)
    ]
    assert (folder / "gradients.png").read_bytes().startswith(b"\x89PNG")


def test_trained_weights_beside_fresh_cells(
    folder: Path, checkpoint_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["gradients", "--cell", "rnn", "--weights", str(checkpoint_file), *SMALL, "--plot", "none"]
    assert main(command) == 0
    assert {(row["model"], row["trained"]) for row in rows(folder / "gradients.csv")} == {
        ("rnn", "0"),
        ("small (lstm)", "1"),
    }
    assert "small (lstm)" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["gradients.csv"]


def test_real_captions_are_read_as_far_as_they_reach(
    folder: Path, checkpoint_file: Path, data: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--weights", str(checkpoint_file), *data, "--plot", "none"]
    assert main(["gradients", *flags, "--sequences", "2"]) == 0
    assert "captions give sequences of 4 words, not 30" in capsys.readouterr().err
    assert [row["lag"] for row in rows(folder / "gradients.csv")] == ["0", "1", "2", "3", "4"]
    assert main(["gradients", *flags, "--sequences", "3", "--length", "2"]) == 0
    assert [row["lag"] for row in rows(folder / "gradients.csv")] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cell", "transformer"], "--cell must be one of"),
        (["--cell", "rnn", "--length", "0"], "--length"),
        (["--cell", "lstm", "--nonlinearity", "sigmoid"], "--nonlinearity"),
        (["--weights", "absent.safetensors"], "absent.safetensors: no such checkpoint"),
        (["--output", "absent/x.csv"], "no folder absent"),
        (["--plot", "x.txt"], "--plot must end in"),
        (["--data", "DIR"], "--dataset"),
        (["--dataset", "flickr8k", "--data", "DIR"], "--weights"),
    ],
    ids=" ".join,
)
def test_wrong_use_is_one_clear_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["gradients", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(folder.iterdir()) == []


def test_a_broken_image_is_one_clear_line(
    checkpoint_file: Path, data: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gradients", "--weights", str(checkpoint_file), *data, "--plot", "none"]) == 2
    assert "broken.jpg" in capsys.readouterr().err.splitlines()[-1]
