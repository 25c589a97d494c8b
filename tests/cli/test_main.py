from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from captioner import __version__
from captioner.cli import COMMANDS, GROUPS, build_parser, main

HEAVY = ("torch", "torchvision", "gradio", "nltk", "numpy", "PIL", "tqdm", "matplotlib", "safetensors")
MODULE = [sys.executable, "-m", "captioner"]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, captioner, captioner.cli\n"
        "try: captioner.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"sys.exit(str([name for name in {HEAVY} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "[]\n"
    assert done.stdout.startswith("usage: captioner")


def test_the_module_and_its_version() -> None:
    done = subprocess.run([*MODULE, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"captioner {__version__}\n", "")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert all(re.search(rf"^    {name}\b", out, re.MULTILINE) for name in COMMANDS)


def test_help_has_one_line_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) < 80
    for group, summaries in GROUPS.items():
        lines = "".join(f"    {name:<10}  {summary}\n" for name, summary in summaries.items())
        assert f"\n{group}:\n{lines}\n" in out
        assert all(re.fullmatch(r"[A-Z][^.]*[^.]", summary) for summary in summaries.values())


def test_the_help_of_a_command_imports_nothing_that_takes_seconds() -> None:
    code = (
        "import sys, captioner.cli\n"
        "captioner.cli.build_parser()\n"
        "sys.exit(str([name for name in ('torch', 'gradio', 'nltk') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert f"  captioner {command} " in out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["--ver"],
        ["caption"],
        ["caption", "x.jpg", "--unknown"],
        ["caption", "x.jpg", "--beam", "3"],
        ["caption", "x.jpg", "--beam-size", "many"],
        ["caption", "x.jpg", "--format", "xml"],
        ["caption", "x.jpg", "--precision", "fp8"],
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as stop:  # argparse refuses it
        code = stop.code
    assert code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error:" in captured.err


def test_every_flag_has_a_help_text() -> None:
    parser = build_parser()
    commands = next(action for action in parser._actions if action.choices and "caption" in action.choices)
    assert isinstance(commands.choices, dict)
    missing = [
        (name, action.dest)
        for name, command in commands.choices.items()
        for action in command._actions
        if not action.help
    ]
    assert missing == []


def test_an_interruption_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("captioner.metadata.describe", interrupt)
    assert main(["info", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "captioner: interrupted\n"


@pytest.mark.parametrize("error", [RuntimeError("a bug"), PermissionError(13, "a bug")])
def test_a_bug_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: object) -> None:
        raise error

    monkeypatch.setattr("captioner.metadata.describe", fail)
    with pytest.raises(type(error)):
        main(["info", "x"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_the_output_is_one_line() -> None:
    # Unbuffered, argparse itself overlooks that its help cannot be written.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*MODULE, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment
        )
    assert done.returncode == 2
    assert done.stderr == "captioner: error: cannot write the output, the disk is full\n"


def test_a_closed_pipe_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run([*MODULE, "--help"], stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes descriptors")
def test_a_closed_output_is_one_line() -> None:
    command = ["sh", "-c", '"$@" >&-', "sh", *MODULE, "--version"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "captioner: error: standard output is closed\n")


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes descriptors")
@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", ""])
def test_messages_that_nobody_reads_end_nothing_and_are_not_printed(tmp_path: Path, where: str) -> None:
    (tmp_path / "a.jpg").write_text("no image")
    reader, writer = os.pipe()
    os.close(reader)
    command = ["sh", "-c", f'"$@" {where}', "sh", *MODULE, "read", tmp_path / "a.jpg"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, check=False)
    os.close(writer)
    assert (done.returncode, done.stdout) == (1, b"")
