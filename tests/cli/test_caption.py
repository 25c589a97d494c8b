from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from captioner.captioner import Captioner
from captioner.cli import main
from captioner.decoding.options import DecodingOptions

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(checkpoint_file: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``captioner caption`` with the small model: exit code, standard output, standard error."""

    def caption(*arguments: str | Path) -> tuple[int, str, str]:
        weights = ["--weights", str(checkpoint_file), "--device", "cpu", "--precision", "fp32"]
        code = main(["caption", *map(str, arguments), *weights])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return caption


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_text("no picture")
    return path


def test_the_text_format_has_one_line_a_picture(run: Run, photos: list[Path], captioner: Captioner) -> None:
    code, out, err = run(*photos)
    expected = [
        f"{path}\t{best.text}" for path, (best, *_) in zip(photos, captioner.caption(photos), strict=True)
    ]
    assert (code, out.splitlines(), err) == (0, expected, "")


def test_log_probabilities_can_be_added_to_the_text(
    run: Run, photos: list[Path], captioner: Captioner
) -> None:
    _, out, _ = run(photos[0], "--log-prob")
    ((best,),) = captioner.caption(photos[:1])
    assert out == f"{photos[0]}\t{best.text}\t{best.log_prob:.2f}\n"


def test_json_records(run: Run, photos: list[Path], captioner: Captioner, broken: Path) -> None:
    code, out, err = run(photos[0], broken, photos[1], "--format", "jsonl")
    first, second = captioner.caption(photos[:2])
    records = [json.loads(line) for line in out.splitlines()]
    reason = f"{broken}: not a picture in a known format (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC)"
    assert code == 1
    assert [list(record) for record in records] == [
        ["image", "caption", "log_prob"],
        ["image", "error"],
        ["image", "caption", "log_prob"],
    ]
    assert records[0]["image"] == str(photos[0])
    assert records[0]["caption"] == first[0].text
    assert records[0]["log_prob"] == pytest.approx(first[0].log_prob, abs=1e-3)
    assert records[1] == {"image": str(broken), "error": reason}
    assert records[2]["caption"] == second[0].text
    assert err == f"captioner: {reason}\n"


def test_several_captions_a_picture(run: Run, photos: list[Path]) -> None:
    _, out, _ = run(photos[0], "--num-captions", "3", "--format", "jsonl")
    record = json.loads(out)
    assert list(record) == ["image", "caption", "log_prob", "captions"]
    assert len(record["captions"]) == 3
    assert record["captions"][0] == {"caption": record["caption"], "log_prob": record["log_prob"]}
    _, out, _ = run(photos[0], "--num-captions", "3")
    assert out.splitlines() == [f"{photos[0]}\t{each['caption']}" for each in record["captions"]]


def test_every_decoding_flag_reaches_the_decoder(run: Run, photos: list[Path], captioner: Captioner) -> None:
    options = DecodingOptions(
        temperature=0.9, top_k=9, top_p=0.9, num_captions=2, min_length=3, max_length=5, seed=4
    )
    flags = "--temperature 0.9 --top-k 9 --top-p 0.9 --num-captions 2 --min-length 3 --max-length 5 --seed 4"
    _, out, _ = run(photos[0], *flags.split(), "--batch-size", "1")
    (expected,) = captioner.caption(photos[:1], options)
    assert out.splitlines() == [f"{photos[0]}\t{caption.text}" for caption in expected]


def test_a_folder_with_sub_folders(run: Run, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "inner" / "b.png"):
        Image.new("RGB", (9, 9)).save(path)
    assert run(tmp_path)[1].count("\n") == 2
    assert run(tmp_path, "--no-recursive")[1].count("\n") == 1


def test_odd_file_names_stay_on_one_line_and_are_exact_in_json(run: Run, tmp_path: Path) -> None:
    names = {
        "new\nline.png": "new\\nline.png",
        "tab\t.png": "tab\\t.png",
        os.fsdecode(b"\xff.png"): "\\udcff.png",
        "🦄 é.png": "🦄 é.png",
        "--seed.png": "--seed.png",
        '"quoted".png': '"quoted".png',
    }
    for name in names:
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    code, out, err = run(*(tmp_path / name for name in names))
    assert (code, err) == (0, "")
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        f"{tmp_path}/{name}" for name in names.values()
    ]
    _, out, _ = run(*(tmp_path / name for name in names), "--format", "jsonl")
    assert [json.loads(line)["image"] for line in out.splitlines()] == [
        f"{tmp_path}/{name}" for name in names
    ]


def test_errors_about_odd_file_names_stay_on_one_line(run: Run, tmp_path: Path) -> None:
    code, out, err = run(tmp_path / "a\nb\x1b[0m.png")
    assert (code, out) == (1, "")
    assert err == f"captioner: {tmp_path}/a\\nb\\x1b[0m.png: no such file\n"


def test_words_of_a_hostile_vocabulary_stay_on_one_line(
    run: Run, photos: list[Path], captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.captioner.detokenize", lambda words: "a\nb\x1b")
    _, out, _ = run(photos[0])
    assert out == f"{photos[0]}\ta\\nb\\x1b\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "nonsense"], "device 'nonsense' is not to be had here"),
        (["--weights", "absent.safetensors"], "absent.safetensors: no such checkpoint"),
        (["--beam-size", "0"], "beam_size must be"),
        (["--temperature", "-1"], "temperature must be"),
        (["--batch-size", "0"], "batch_size and max_pixels must be at least 1"),
        (["--max-pixels", "0"], "batch_size and max_pixels must be at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_line_and_exit_code_2(
    flags: list[str],
    message: str,
    photos: list[Path],
    checkpoint_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["caption", str(photos[0]), "--weights", str(checkpoint_file), *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"captioner: error: {message}")
    assert captured.err.count("\n") == 1


def test_a_folder_without_pictures_is_wrong_use(run: Run, tmp_path: Path) -> None:
    assert run(tmp_path) == (2, "", f"captioner: error: no pictures in {tmp_path}\n")


def test_progress_is_shown_on_a_terminal_only(
    run: Run, photos: list[Path], broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*photos[:3])[2] == ""
    with monkeypatch.context() as patch:
        patch.setattr(sys.stderr, "isatty", lambda: True)
        code, out, err = run(*photos[:3], broken)
    assert (code, out.count("\n")) == (1, 3)
    assert "pictures/s]" in err
    assert f"captioner: {broken}: not a picture" in err
    with monkeypatch.context() as patch:
        patch.setattr(sys.stderr, "isatty", lambda: True)
        patch.setattr(sys.stdout, "isatty", lambda: True)
        assert run(*photos[:3])[2] == ""


@pytest.fixture
def endless(checkpoint_file: Path, photos: list[Path], tmp_path: Path) -> list[str]:
    """A command that would take minutes: three thousand pictures, one at a time."""
    folder = tmp_path / "many"
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "0.png")
    for number in range(1, 3000):
        os.link(folder / "0.png", folder / f"{number}.png")
    command = [sys.executable, "-m", "captioner", "caption", str(folder), "--batch-size", "1"]
    return [*command, "--weights", str(checkpoint_file), "--device", "cpu"]


def test_ctrl_c_ends_with_130_and_without_a_traceback(endless: list[str]) -> None:
    with subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "captioner: interrupted\n")


def test_a_reader_that_goes_away_ends_it_quietly(endless: list[str]) -> None:
    with subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().count("\t") == 1
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
