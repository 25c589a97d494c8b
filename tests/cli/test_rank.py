from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from captioner.captioner import Captioner
from captioner.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(checkpoint_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``captioner rank`` on some bytes: exit code, standard output, standard error."""

    def rank(given: bytes, *arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        code = main(["rank", *map(str, arguments), "--weights", str(checkpoint_file), "--device", "cpu"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return rank


CANDIDATES = ["a dog", "the man stands near the tree", "a unicorn", "two girl 's", "a dog!"]
GIVEN = "\n".join(CANDIDATES).encode()


@pytest.mark.parametrize("per_word", [False, True])
def test_the_best_come_first_and_unknown_words_last(
    run: Run, images: list[Path], captioner: Captioner, per_word: bool
) -> None:
    code, out, err = run(GIVEN, images[0], *["--per-word"] * per_word)
    regions = captioner.encode([captioner.preprocess(images[0])])
    known = [text for text in CANDIDATES if "unicorn" not in text]
    scores = captioner.score(np.repeat(regions, 4, axis=0), known)
    scores.sort(key=lambda score: -(score.mean_log_prob if per_word else score.log_prob))
    expected = [f"{score.log_prob:8.2f} {score.mean_log_prob:7.2f}  {score.text}" for score in scores]
    last = "       -       -  a unicorn  [the model does not know the word 'unicorn']"
    assert (code, out.splitlines(), err) == (1, [*expected, last], "")


def test_json(run: Run, images: list[Path]) -> None:
    code, out, _ = run(GIVEN, images[0], "--json")
    records = [json.loads(line) for line in out.splitlines()]
    values = [record["log_prob"] for record in records[:4]]
    assert code == 1
    assert values == sorted(values, reverse=True)
    assert records[4] == {
        "text": "a unicorn",
        "error": "the model does not know the word 'unicorn'",
        "unknown_words": ["unicorn"],
    }


def test_all_known_ends_with_0_and_all_unknown_with_1(run: Run, images: list[Path]) -> None:
    assert run(b"a dog\nthe man", images[0])[0] == 0
    code, out, _ = run(b"unicorns\ndragons", images[0])
    assert (code, [line.split()[2] for line in out.splitlines()]) == (1, ["unicorns", "dragons"])


def test_lines_without_words_are_left_out_and_counted(run: Run, images: list[Path]) -> None:
    code, out, err = run(b"\r\na dog\r\n \t\n?!\n\x00\x1b\n", images[0])
    assert (code, out.count("\n")) == (0, 1)
    assert out.endswith("  a dog\n")
    assert err == "captioner: standard input: left out 4 lines without words\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"", "standard input: holds no text; give one text a line"),
        (b"\n\n", "standard input: holds no text; give one text a line"),
        (b"a dog\na\xff dog", "standard input: line 2 is not UTF-8 text"),
        (b"a dog\n" + b"a " * 100_001, "standard input: line 2: a text of 100,001 words is too long"),
    ],
    ids=["empty", "no words", "no UTF-8", "long"],
)
def test_wrong_input_is_one_line(run: Run, images: list[Path], given: bytes, message: str) -> None:
    code, out, err = run(given, images[0])
    assert (code, out) == (2, "")
    assert err.startswith(f"captioner: error: {message}")
    assert err.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes descriptors")
@pytest.mark.parametrize(
    ("redirection", "message"),
    [
        ("<&-", "standard input is closed; give one text a line"),
        ("0>/dev/null", "standard input: cannot be read (Bad file descriptor)"),
    ],
)
def test_input_that_cannot_be_read(redirection: str, message: str, images: list[Path]) -> None:
    command = ["sh", "-c", f'"$@" {redirection}', "sh", sys.executable, "-m", "captioner", "rank"]
    done = subprocess.run([*command, images[0]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"captioner: error: {message}\n")
