"""One image named on the command line: what it costs besides the work itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from captioner.captioner import Captioner
from captioner.cli import main

# Counts from the first import on. What a library starts by itself, such as ``ldconfig``, is no Python.
WATCHED = """
import json, sys

counts = {"processes": 0, "databases": 0, "weights": 0, "image": 0}

def watch(event, arguments):
    if event == "subprocess.Popen" and sys.executable in map(str, arguments[1]):
        counts["processes"] += 1
    elif event in ("os.fork", "os.forkpty", "os.posix_spawn", "os.exec"):
        counts["processes"] += 1
    elif event == "sqlite3.connect":
        counts["databases"] += 1
    elif event == "open" and arguments[0] is not None and not isinstance(arguments[0], int):
        for name, path in (("weights", WEIGHTS), ("image", IMAGE)):
            counts[name] += str(arguments[0]) == path

IMAGE, WEIGHTS = sys.argv[1:3]
sys.addaudithook(watch)
from captioner.cli import main

main(["caption", *sys.argv[1:2], "--weights", WEIGHTS, "--device", "cpu", *sys.argv[3:]])
print(json.dumps(counts))
"""


def watched(*arguments: str | Path) -> tuple[list[str], dict[str, int]]:
    """Caption in a process of its own; what it prints, and how often it does what costs something."""
    command = [sys.executable, "-c", WATCHED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *lines, counts = done.stdout.splitlines()
    return lines, json.loads(counts)


def test_neither_a_process_nor_a_database_and_each_file_is_read_once(
    images: list[Path], checkpoint_file: Path, captioner: Captioner
) -> None:
    lines, counts = watched(images[0], checkpoint_file)
    ((best,),) = captioner.caption(images[:1])
    assert lines == [f"{images[0]}\t{best.text}"]
    assert counts == {"processes": 0, "databases": 0, "weights": 1, "image": 1}


def test_nothing_is_left_in_the_home_folder(images: list[Path], checkpoint_file: Path, tmp_path: Path) -> None:
    """Packages of ONNX Runtime have kept telemetry there, though not where CI is run."""
    homes = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "TMPDIR"), str(tmp_path))
    kept = {name: value for name in ("PATH", "PYTHONPATH") if (value := os.environ.get(name))}
    command = [sys.executable, "-m", "captioner", "caption", str(images[0]), "--weights", str(checkpoint_file)]
    subprocess.run([*command, "--runtime", "onnx"], env={**kept, **homes}, stdout=subprocess.DEVNULL, check=True)
    assert list(tmp_path.iterdir()) == []


def test_the_watch_sees_processes_and_databases(images: list[Path], checkpoint_file: Path) -> None:
    _, counts = watched(images[0], checkpoint_file, "--workers", "1", "--format", "html")
    assert counts == {"processes": 1, "databases": 1, "weights": 1, "image": 0}  # another process opens it


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes descriptors")
def test_processes_that_read_need_no_standard_error(images: list[Path], checkpoint_file: Path) -> None:
    options = ["--weights", str(checkpoint_file), "--workers", "1"]
    command = [sys.executable, "-m", "captioner", "caption", *map(str, images[:2]), *options]
    done = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", *command], stdout=subprocess.PIPE, check=True)
    assert len(done.stdout.splitlines()) == 2


def test_programs_are_told_how_far_an_image_alone_is(
    images: list[Path], checkpoint_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_text("no image")
    for path, failed in ((images[0], 0), (tmp_path / "a.jpg", 1)):
        assert main(["caption", str(path), "--weights", str(checkpoint_file), "--progress", "json"]) == failed
        *_, state, _summary = map(json.loads, capsys.readouterr().err.splitlines())
        assert (state["done"], state["total"], state["failed"]) == (1, 1, failed)


@pytest.mark.parametrize("kind", ["text", "jsonl", "csv"])
def test_an_image_alone_is_printed_as_in_a_folder(
    images: list[Path],
    checkpoint_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    image = tmp_path / images[0].name
    image.write_bytes(images[0].read_bytes())
    options = ["--weights", str(checkpoint_file), "--device", "cpu", "--format", kind, "--num-captions", "2"]
    printed = []
    for path in (image, tmp_path):
        assert main(["caption", str(path), *options, "--log-prob", "--append", "!"]) == 0
        found = capsys.readouterr()
        printed.append(found.out)
        assert found.err.startswith("captioner: 1 captioned, 0 skipped, 0 failed, ")
    assert printed[0] == printed[1]


def test_a_broken_image_alone_is_one_failure(
    checkpoint_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "broken.jpg"
    image.write_text("no image")
    assert main(["caption", str(image), "--weights", str(checkpoint_file), "--device", "cpu"]) == 1
    found = capsys.readouterr()
    assert found.out == ""
    reason, summary = found.err.splitlines()
    assert reason.startswith(f"captioner: {image}: not an image in a known format")
    assert summary.startswith("captioner: 0 captioned, 0 skipped, 1 failed")
