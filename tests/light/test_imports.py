"""What captions cost at their start: what a first caption imports."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.light.installing import run

HEAVY = ("torch", "torchvision", "nltk", "onnx", "onnxscript", "gradio", "matplotlib", "pandas", "scipy")


@pytest.mark.parametrize("more", [[], ["--consensus"], ["--temperature", "1"], ["--format", "jsonl"]], ids=" ".join)
def test_a_caption_imports_nothing_that_it_does_not_need(more: list[str], images: list[Path]) -> None:
    code = (
        "import sys, captioner.cli\n"
        "code = captioner.cli.main(['caption', '--quiet', *sys.argv[1:]])\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = run("-c", code, images[0], *more, environment=dict(os.environ))
    assert (done.returncode, done.stderr.split()) == (0, ["nltk"] * ("--consensus" in more))


def test_writing_a_folder_imports_none_of_them(images: list[Path], tmp_path: Path) -> None:
    code = (
        "import sys, captioner.cli\n"
        "code = captioner.cli.main(['caption', '--quiet', *sys.argv[1:]])\n"
        f"sys.exit(str([code, *(name for name in {HEAVY} if name in sys.modules)]))"
    )
    for output in ("a.csv", "a.html", "a.jsonl"):
        done = run("-c", code, *images[:2], "--output", tmp_path / output, environment=dict(os.environ))
        assert done.stderr == "[0]\n", output
