from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from captioner.captioner import Captioner
from captioner.cli import main
from captioner.decoding.options import DecodingOptions
from tests.bulk.tarring import make_tar

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(checkpoint_file: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``captioner caption`` with the small model: exit code, standard output, standard error."""

    def caption(*arguments: str | Path, quiet: bool = True) -> tuple[int, str, str]:
        weights = ["--weights", str(checkpoint_file), "--device", "cpu", "--precision", "fp32"]
        more = [*weights, "--workers", "0", *(["--quiet"] if quiet else [])]
        code = main(["caption", *map(str, arguments), *more])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return caption


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_text("no image")
    return path


def test_the_text_format_has_one_line_a_image(run: Run, images: list[Path], captioner: Captioner) -> None:
    code, out, err = run(*images)
    expected = [f"{path}\t{best.text}" for path, (best, *_) in zip(images, captioner.caption(images), strict=True)]
    assert (code, out.splitlines(), err) == (0, expected, "")


def test_log_probabilities_can_be_added_to_the_text(run: Run, images: list[Path], captioner: Captioner) -> None:
    _, out, _ = run(images[0], "--log-prob")
    ((best,),) = captioner.caption(images[:1])
    assert out == f"{images[0]}\t{best.text}\t{best.log_prob:.2f}\n"


def test_json_records(run: Run, images: list[Path], captioner: Captioner, broken: Path) -> None:
    code, out, err = run(images[0], broken, images[1], "--format", "jsonl")
    first, second = captioner.caption(images[:2])
    records = [json.loads(line) for line in out.splitlines()]
    reason = (
        f"{broken}: not an image in a known format (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC, JPEG XL, camera raw)"
    )
    assert code == 1
    assert [list(record) for record in records] == [
        ["image", "caption", "log_prob"],
        ["image", "error"],
        ["image", "caption", "log_prob"],
    ]
    assert records[0]["image"] == str(images[0])
    assert records[0]["caption"] == first[0].text
    assert records[0]["log_prob"] == pytest.approx(first[0].log_prob, abs=1e-3)
    assert records[1] == {"image": str(broken), "error": reason}
    assert records[2]["caption"] == second[0].text
    assert err == f"captioner: {reason}\n"


def test_several_captions_a_image(run: Run, images: list[Path]) -> None:
    _, out, _ = run(images[0], "--num-captions", "3", "--format", "jsonl")
    record = json.loads(out)
    assert list(record) == ["image", "caption", "log_prob", "captions"]
    assert len(record["captions"]) == 3
    assert record["captions"][0] == {"caption": record["caption"], "log_prob": record["log_prob"]}
    _, out, _ = run(images[0], "--num-captions", "3")
    assert out.splitlines() == [f"{images[0]}\t{each['caption']}" for each in record["captions"]]


def test_every_decoding_flag_reaches_the_decoder(run: Run, images: list[Path], captioner: Captioner) -> None:
    options = DecodingOptions(temperature=0.9, top_k=9, top_p=0.9, num_captions=2, min_length=3, max_length=5, seed=4)
    flags = "--temperature 0.9 --top-k 9 --top-p 0.9 --num-captions 2 --min-length 3 --max-length 5 --seed 4"
    _, out, _ = run(images[0], *flags.split(), "--batch-size", "1")
    (expected,) = captioner.caption(images[:1], options)
    assert out.splitlines() == [f"{images[0]}\t{caption.text}" for caption in expected]


def test_consensus_reaches_the_search(run: Run, images: list[Path], captioner: Captioner) -> None:
    # Without the rule against naming one thing twice, which leaves these few captions in one order.
    options = replace(captioner.options, beam_size=6, num_captions=3, no_repeat_thing=False, consensus=True)
    flags = ["--beam-size", "6", "--num-captions", "3", "--no-no-repeat-thing"]
    (expected,) = captioner.caption(images[:1], options)
    assert run(images[0], *flags, "--consensus")[1].splitlines() == [
        f"{images[0]}\t{caption.text}" for caption in expected
    ]
    assert run(images[0], *flags, "--consensus")[1] != run(images[0], *flags)[1]


def test_a_folder_with_sub_folders(run: Run, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "inner" / "b.png"):
        Image.new("RGB", (9, 9)).save(path)
    assert run(tmp_path)[1].count("\n") == 2
    assert run(tmp_path, "--no-recursive")[1].count("\n") == 1


def test_tars_may_be_expanded_by_the_shell_or_here(
    run: Run, images: list[Path], captioner: Captioner, tmp_path: Path
) -> None:
    tars = [make_tar(tmp_path / f"t-{n}.tar", [(p.name, p.read_bytes())]) for n, p in enumerate(images[:2])]
    (first,), (second,) = captioner.caption(images[:2])
    expected = f"{tars[0]}/{images[0].name}\t{first.text}\n{tars[1]}/{images[1].name}\t{second.text}\n"
    assert run("--input-tar", tmp_path / "t-{0..1}.tar") == (0, expected, "")
    assert run("--input-tar", tars[0], "--input-tar", tars[1]) == (0, expected, "")
    assert run("--input-tar", *tars) == (0, expected, "")


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
    assert [line.split("\t")[0] for line in out.splitlines()] == [f"{tmp_path}/{name}" for name in names.values()]
    _, out, _ = run(*(tmp_path / name for name in names), "--format", "jsonl")
    assert [json.loads(line)["image"] for line in out.splitlines()] == [f"{tmp_path}/{name}" for name in names]


def test_errors_about_odd_file_names_stay_on_one_line(run: Run, tmp_path: Path) -> None:
    code, out, err = run(tmp_path / "a\nb\x1b[0m.png")
    assert (code, out) == (1, "")
    assert err == f"captioner: {tmp_path}/a\\nb\\x1b[0m.png: no such file\n"


def test_words_of_a_hostile_vocabulary_stay_on_one_line(
    run: Run, images: list[Path], captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.captioner.detokenize", lambda words: "a\nb\x1b")
    _, out, _ = run(images[0])
    assert out == f"{images[0]}\ta\\nb\\x1b\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "nonsense"], "device 'nonsense' is not available"),
        (["--weights", "absent.safetensors"], "absent.safetensors: no such checkpoint"),
        (["--beam-size", "0"], "--beam-size must be"),
        (["--temperature", "-1"], "--temperature must be"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--max-pixels", "0"], "--max-pixels must be at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_line_and_exit_code_2(
    flags: list[str],
    message: str,
    images: list[Path],
    checkpoint_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["caption", str(images[0]), "--weights", str(checkpoint_file), *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"captioner: error: {message}")
    assert captured.err.count("\n") == 1


def test_a_folder_without_images_is_wrong_use(run: Run, tmp_path: Path) -> None:
    assert run(tmp_path) == (2, "", f"captioner: error: no images in {tmp_path}\n")


def test_the_last_line_sums_up(run: Run, images: list[Path], broken: Path) -> None:
    code, out, err = run(*images[:3], broken, quiet=False)
    assert (code, out.count("\n")) == (1, 3)
    first, last = err.splitlines()
    assert first.startswith(f"captioner: {broken}: not an image")
    assert re.fullmatch(r"captioner: 3 captioned, 0 skipped, 1 failed, [0-9.]+ images/s", last)
    assert run(*images[:3])[2] == ""


def test_a_bar_is_shown_on_a_terminal_only(
    run: Run, images: list[Path], broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys.stderr, "isatty", lambda: True)
        code, out, err = run(*images[:3], broken, quiet=False)
        assert "images/s]" not in run(*images[:3])[2]
    assert (code, out.count("\n")) == (1, 3)
    assert "images/s]" in err
    assert f"captioner: {broken}: not an image" in err
    with monkeypatch.context() as patch:
        patch.setattr(sys.stderr, "isatty", lambda: True)
        patch.setattr(sys.stdout, "isatty", lambda: True)
        assert run(*images[:3], quiet=False)[2].startswith("captioner: 3 captioned")


@pytest.mark.parametrize("kind", ["text", "jsonl", "csv"])
def test_what_is_printed_is_what_is_written(run: Run, images: list[Path], tmp_path: Path, kind: str) -> None:
    _, out, _ = run(*images, "--format", kind, "--prepend", "photo of")
    assert run(*images, "--format", kind, "--prepend", "photo of", "--output", tmp_path / "out") == (
        0,
        "",
        "",
    )
    assert (tmp_path / "out").read_bytes() == out.encode()
    assert out.count("photo of ") == len(images)


def test_coco_results_can_be_printed(run: Run, images: list[Path], tmp_path: Path) -> None:
    numbered = [tmp_path / f"{number:012}.jpg" for number in (139, 285)]
    for path, image in zip(numbered, images, strict=False):
        path.write_bytes(image.read_bytes())
    _, out, _ = run(tmp_path, "--format", "coco")
    assert [record["image_id"] for record in json.loads(out)] == [139, 285]
    code, out, err = run(images[0], "--format", "coco")
    assert (code, out) == (2, "")
    assert err.startswith(f"captioner: error: {images[0]}: has no number for the format coco")


def test_names_come_from_a_list_on_standard_input(
    run: Run, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "".join(f"{image}\0" for image in images[2:4]).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names)))
    code, out, _ = run(images[0], "--from-file", "-")
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(images[i]) for i in (0, 2, 3)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run("--from-file", "-") == (2, "", "captioner: error: no images in --from-file -\n")
    assert run()[2].startswith("captioner: error: name an image or a folder")


def test_a_dry_run_lists_what_would_be_done_and_does_nothing(
    run: Run, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.jsonl"
    run(*images[:2], "--output", output)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(Captioner, "load", fail)
    code, out, err = run(*images[:4], "--output", output, "--dry-run", quiet=False)
    assert (code, err) == (0, "captioner: 2 to caption, 2 to skip\n")
    states = ["skip", "skip", "caption", "caption"]
    assert out == "".join(f"{state}\t{image}\n" for state, image in zip(states, images, strict=False))
    code, out, err = run(*images[:2], "--output", output, "--dry-run", "--beam-size", "7")
    assert (code, out) == (2, "")
    assert "beam_size 3, not 7" in err
    assert run(*images[:2], "--format", "sidecar", "--dry-run", "--sidecar-extension", ".caption")[0] == 0
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before
    assert run(images[0], "--dry-run") == (0, f"caption\t{images[0]}\n", "")
    assert not list(images[0].parent.glob("*.caption"))


@pytest.fixture
def endless(checkpoint_file: Path, images: list[Path], tmp_path: Path) -> list[str]:
    """A command that would take minutes: three thousand images, one at a time."""
    folder = tmp_path / "many"
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "0.png")
    for number in range(1, 3000):
        os.link(folder / "0.png", folder / f"{number}.png")
    command = [sys.executable, "-m", "captioner", "caption", str(folder), "--batch-size", "1"]
    return [*command, "--weights", str(checkpoint_file), "--device", "cpu", "--workers", "1"]


def test_ctrl_c_finishes_the_batch_and_ends_with_130(endless: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    command = [*endless, "--output", str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (output.exists() and output.stat().st_size):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    notice, summary, last = err.strip().splitlines()
    assert notice == "finishing the batch in hand; Ctrl-C again breaks off"
    assert last == "captioner: interrupted; to go on, give the same command"
    lines = output.read_text().splitlines()
    start = f"captioner: {len(lines)} captioned, 0 skipped, 0 failed, "
    found = re.fullmatch(re.escape(start) + r"(at least )?([\d,]+) remaining, .*", summary)
    assert found
    left, all_left = int(found[2].replace(",", "")), 3000 - len(lines)
    assert 0 < left <= all_left if found[1] else left == all_left  # the listing goes on while images are captioned
    assert all("caption" in json.loads(line) for line in lines)


def test_ctrl_c_twice_breaks_off(endless: list[str]) -> None:
    with subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "captioner: interrupted" in err


def test_a_reader_that_goes_away_ends_it_quietly(endless: list[str]) -> None:
    with subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().count("\t") == 1
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
