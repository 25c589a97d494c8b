"""``captioner caption`` over folders as they are found in life, up to the disk that is full."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from captioner.bulk import run
from captioner.captioner import Captioner
from captioner.cli import main
from tests.bulk.folders import caption, contents, save_image
from tests.cli.conftest import Command


@pytest.mark.parametrize("workers", ["0", "2"])
def test_every_fault_is_a_record_and_the_run_goes_on(
    command: Command,
    faults: tuple[Path, dict[str, str]],
    tmp_path: Path,
    workers: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, expected = faults
    before = contents(folder)
    output = tmp_path / "out.jsonl"
    assert main(command(folder, "--output", output, "--workers", workers)) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    said = printed.err.splitlines()
    assert len(said) == 9
    assert said[-1].startswith("captioner: 11 captioned, 0 skipped, 8 failed, ")
    records = {Path(r["image"]).name: r for r in map(json.loads, output.read_text().splitlines())}
    assert records.keys() == expected.keys()
    for name, reason in expected.items():
        assert ("caption" in records[name]) == (not reason)
        if reason:
            assert records[name] == {"image": str(folder / name), "error": records[name]["error"]}
            assert reason in records[name]["error"].removeprefix(f"{folder}/{name}: ")
            assert f"captioner: {records[name]['error']}" in said
    assert records["copy.png"]["caption"] == records["good.png"]["caption"]
    assert contents(folder) == before

    assert main(command(folder, "--output", tmp_path / "out.csv", "--workers", workers, "-q")) == 1
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = {Path(row["image"]).name: row for row in csv.DictReader(file, strict=True)}
    assert rows.keys() == {name.encode("utf-8", "backslashreplace").decode() for name in expected}
    assert rows["new\nline.png"]["caption"] == records["new\nline.png"]["caption"]
    assert "folder.jpg" in rows["folder.jpg"]["error"]
    assert contents(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out")) == [
        "out.csv", "out.csv.journal", "out.jsonl", "out.jsonl.journal"
    ]  # fmt: skip


def test_sidecars_beside_every_good_image_and_nowhere_else(
    command: Command, faults: tuple[Path, dict[str, str]]
) -> None:
    folder, expected = faults
    before = contents(folder)
    (folder / "copy.png").unlink()  # it has the stem of none, but is one of two with the same bytes
    del before["copy.png"]
    assert main(command(folder, "--format", "sidecar", "--workers", "0", "-q")) == 1
    added = contents(folder).keys() - before.keys()
    good = [name for name, reason in expected.items() if not reason and name != "copy.png"]
    assert added == {Path(name).stem + ".txt" for name in good}
    assert all(data.count(b"\n") == 1 for name, data in contents(folder).items() if name in added)


def test_permission_denied_is_a_record(captioner: Captioner) -> None:
    """Root may read anything, so a process without its rights looks at what it may not see."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as name:  # others may enter it, unlike pytest's own
        folder, output = Path(name) / "pictures", Path(name) / "captions.jsonl"
        Path(name).chmod(0o777)
        for number, image in enumerate(("a.png", "b.png", "locked/c.png")):
            save_image(folder / image, number)
        (folder / "b.png").chmod(0)
        (folder / "locked").chmod(0)
        assert caption_as_nobody(captioner, folder, output) == (1, 2)
        _, second, third = map(json.loads, output.read_text().splitlines())
    reason = f"{folder}/b.png: cannot be read (Permission denied)"
    assert second == {"image": f"{folder}/b.png", "error": reason}
    assert third["error"] == f"{folder}/locked: folder cannot be read"


def caption_as_nobody(captioner: Captioner, folder: Path, output: Path) -> tuple[int, int]:
    """Caption as a user without rights; images captioned and failed."""
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            torch.set_num_threads(1)
            summary = caption(captioner, folder, output=str(output), format="jsonl")
            os._exit(10 * summary.captioned + summary.failed)
        finally:
            os._exit(255)
    return divmod(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 10)


def test_a_image_that_vanishes_during_the_run_is_a_record(
    captioner: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save_image(tmp_path / f"{number}.png", number) for number in range(4)]
    caption_what_is_due = run._Run._caption

    def lose_before(run: Any, *arguments: Any) -> None:
        paths[2].unlink()
        caption_what_is_due(run, *arguments)

    monkeypatch.setattr(run._Run, "_caption", lose_before)
    summary = caption(captioner, tmp_path, output=str(tmp_path / "out.jsonl"))
    assert (summary.captioned, summary.failed) == (3, 1)
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(lines[2]) == {"image": str(paths[2]), "error": f"{paths[2]}: no such file"}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "text", "coco", "sidecar"])
@pytest.mark.parametrize("room", [0, 200, 40_000])
def test_a_file_that_cannot_grow_ends_the_run_with_one_line_and_is_valid(
    command: Command, tmp_path: Path, kind: str, room: int
) -> None:
    """No file may grow beyond a limit, as on a disk that is full; the journal reaches 40,000 bytes first."""
    folder, output = tmp_path / "pictures", tmp_path / "captions"
    for number in range(12):
        save_image(folder / f"{number:012}.png", number)
    before = contents(tmp_path)
    where = [] if kind == "sidecar" else ["--output", output]
    arguments = command(folder, *where, "--format", kind, "--workers", "0", "--batch-size", "1", "-q")
    ear, mouth = os.pipe()  # what is said must not go to a file
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            sys.stderr = os.fdopen(mouth, "w", buffering=1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            os._exit(main(arguments))
        finally:
            os._exit(9)
    os.close(mouth)
    with os.fdopen(ear) as said_to_us:
        said = said_to_us.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if kind == "sidecar" and room:
        assert code == 0  # each is small
        return
    if code:
        assert code == 2
        assert said.startswith("captioner: error: cannot write ")
        assert said.count("\n") == 1
        assert "what is written is whole" in said
    written = output.read_text() if output.exists() else ""
    assert written == "" or written.endswith("\n")
    if kind == "jsonl":
        assert all("caption" in json.loads(line) for line in written.splitlines())
    assert main(arguments) == 0
    if kind != "sidecar":
        assert main(command(folder, "--output", tmp_path / "whole", "--format", kind, "-q", "--workers", "0")) == 0
        assert output.read_bytes() == (tmp_path / "whole").read_bytes()
    else:
        assert len(contents(tmp_path)) == len(before) + 12


def test_a_full_disk(command: Command, tmp_path: Path, little_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pictures"
    for number in range(12):
        save_image(folder / f"{number}.png", number)
    filler = little_disk / "filler"
    arguments = command(folder, "--output", little_disk / "out.jsonl", "--workers", "0", "--batch-size", "1")
    for room in (0, 8192, 32768, 40960, 45056):
        filler.write_bytes(bytes(max(0, 100 * 1024 - room)))
        assert main(arguments) == 2, room
        err = capsys.readouterr().err.splitlines()
        assert err[-1].startswith("captioner: error: cannot write ")
        assert len(err) == 1
        if (little_disk / "out.jsonl").exists():
            assert all(map(json.loads, (little_disk / "out.jsonl").read_text().splitlines()))
        filler.unlink()
    assert main(arguments) == 0
    assert len((little_disk / "out.jsonl").read_text().splitlines()) == 12


def test_a_second_run_takes_start_up_time_only(command: Command, tmp_path: Path) -> None:
    """Not even torch is imported, which takes longer than all else."""
    for number in range(4):
        save_image(tmp_path / "pictures" / f"{number}.png", number)
    for more in (
        ["--format", "sidecar"],
        ["--output", str(tmp_path / "out.csv")],
        ["--output", str(tmp_path / "out.html")],
        ["--embed", "--output", str(tmp_path / "copies")],
        ["--embed", "--in-place"],
    ):
        arguments = command(tmp_path / "pictures", "--recursive", *more)
        assert main([*arguments, "-q"]) == 0
        before = contents(tmp_path)
        program = (
            "import sys; from captioner.cli import main; "
            f"code = main({arguments!r}); print(code, 'torch' in sys.modules)"
        )
        again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert again.stdout == "0 False\n"
        assert again.stderr == "captioner: 0 captioned, 4 skipped, 0 failed\n"
        assert contents(tmp_path) == before


def test_two_processes_that_race_for_one_output_leave_one_valid_file(captioner: Captioner, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for number in range(6):
        save_image(folder / f"{number}.png", number)
    caption(captioner, folder, output=str(tmp_path / "alone"), format="jsonl", batch_size=1)
    for attempt in range(4):
        output = tmp_path / f"raced-{attempt}"
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                try:
                    torch.set_num_threads(1)
                    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                    caption(captioner, folder, output=str(output), format="jsonl", batch_size=1)
                    os._exit(0)
                finally:
                    os._exit(1)  # it has been told that another one is writing
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert 0 in codes
        assert output.read_bytes() == (tmp_path / "alone").read_bytes()
