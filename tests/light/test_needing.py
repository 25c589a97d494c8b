"""What needs torch says so in one line, and how to install it."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.cli import COMMANDS
from tests.light.conftest import Run
from tests.light.installing import run


def test_help_needs_nothing(light: dict[str, str]) -> None:
    code = (
        "import contextlib, io, sys, captioner.cli\n"
        "for command in sys.argv[1:]:\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        captioner.cli.main([command, '--help'])\n"
        "    assert 'examples:' in out.getvalue(), command\n"
        "print('shown')"
    )
    done = run("-c", code, "--help", *COMMANDS, environment=light)
    assert (done.returncode, done.stdout, done.stderr) == (0, "shown\n", "")


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (["train", "--dataset", "TABLE", "--output", "OUT/a.safetensors"], "captioner train"),
        (["classifier", "--output", "OUT/a.safetensors"], "captioner classifier"),
        (["gradients", "--cell", "rnn", "--plot", "none", "--output", "OUT/a.csv"], "captioner gradients"),
        (["export", "captioner", "--output", "OUT/a.safetensors"], "captioner export"),
        (["caption", "IMAGE", "--runtime", "torch"], "--runtime torch"),
        (["score", "IMAGE", "a dog", "--runtime", "torch"], "--runtime torch"),
        (["caption", "IMAGE", "--device", "cuda"], "--device cuda"),
    ],
    ids=lambda given: given if isinstance(given, str) else " ".join(given[:1]),
)
def test_what_needs_torch_says_so(
    command: list[str], what: str, captioner: Run, table: str, tmp_path: Path, images: list[Path]
) -> None:
    places = {"TABLE": table, "IMAGE": str(images[0])}
    done = captioner(*(places.get(word, word.replace("OUT", str(tmp_path))) for word in command))
    expected = f"captioner: error: {what} needs torch: pip install 'captioner[train]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_graphs_says_so(captioner: Run, tmp_path: Path, images: list[Path]) -> None:
    from captioner.metadata import write_metadata
    from captioner.weights import find_weights

    old = tmp_path / "old.safetensors"
    write_metadata(find_weights(None), old, {"graphs": None})
    done = captioner("caption", images[0], "--weights", old)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"captioner: error: {old}")
    assert done.stderr.count("\n") == 1
    assert "needs torch: pip install 'captioner[train]'" in done.stderr
    assert captioner("info", old).returncode == 0


def test_in_python_it_is_an_error_of_ours(light: dict[str, str]) -> None:
    code = (
        "import captioner\n"
        "try: captioner.train\n"
        "except captioner.CaptionerError as error: print(error)\n"
        "print(captioner.load, captioner.TrainingOptions.__name__)"
    )
    done = run("-c", code, environment=light)
    first, second = done.stdout.splitlines()
    assert first == "captioner.train needs torch: pip install 'captioner[train]'"
    assert second.endswith("TrainingOptions")
