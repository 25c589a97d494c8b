from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from captioner.captioner import Captioner
from captioner.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(checkpoint_file: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``captioner score`` with the small model: exit code, standard output, standard error."""

    def score(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(["score", *map(str, arguments), "--weights", str(checkpoint_file), "--device", "cpu"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return score


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_table_for_people(run: Run, images: list[Path], captioner: Captioner) -> None:
    code, out, err = run(images[0], "A dog runs!", "--runners-up", "2")
    regions = captioner.encode([captioner.preprocess(images[0])])
    (score,) = captioner.score(regions, ["A dog runs!"], runners_up=2)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == "text        A dog runs!"
    assert lines[1].startswith(f"log P       {score.log_prob:.2f} ({score.mean_log_prob:.2f} a word")
    assert lines[2] == f"perplexity  {score.perplexity:.2f}"
    assert [line.split()[0] for line in lines[4:]] == ["word", "a", "dog", "runs", "<end>"]
    for line, value, bits, best in zip(
        lines[5:],
        [*score.word_log_probs, score.end_log_prob],
        score.surprisals,
        score.runners_up,
        strict=True,
    ):
        assert f"{value:.2f}  " in line
        assert f"{bits:.2f}  " in line
        assert line.index(f"  {best[0][0]} ") < line.rindex(f" {best[1][0]} ")
    assert "most probable" not in run(images[0], "a dog")[1]


def test_json(run: Run, images: list[Path], captioner: Captioner) -> None:
    code, out, _ = run(images[0], "A dog runs!", "--json", "--runners-up", "1")
    regions = captioner.encode([captioner.preprocess(images[0])])
    (score,) = captioner.score(regions, ["A dog runs!"], runners_up=1)
    record = json.loads(out)
    assert code == 0
    assert record == {
        "text": "A dog runs!",
        "log_prob": pytest.approx(score.log_prob),
        "mean_log_prob": pytest.approx(score.mean_log_prob),
        "perplexity": pytest.approx(score.perplexity),
        "words": ["a", "dog", "runs"],
        "word_log_probs": pytest.approx(score.word_log_probs),
        "end_log_prob": pytest.approx(score.end_log_prob),
        "surprisals": pytest.approx(score.surprisals),
        "runners_up": [
            [{"word": place[0][0], "probability": pytest.approx(place[0][1])}] for place in score.runners_up
        ],
    }
    assert "runners_up" not in json.loads(run(images[0], "a dog", "--json")[1])


def test_the_lines_of_a_file(run: Run, images: list[Path], tmp_path: Path) -> None:
    file = _write(tmp_path / "lines.txt", "\ufeffa dog\r\n\n...\na unicorn\nthe man stands".encode())
    code, out, err = run(images[0], "--file", file, "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [record["text"] for record in records] == ["a dog", "a unicorn", "the man stands"]
    assert records[1]["unknown_words"] == ["unicorn"]
    assert "'unicorn'" in records[1]["error"]
    assert records[0]["log_prob"] == pytest.approx(
        json.loads(run(images[0], "a dog", "--json")[1])["log_prob"], abs=1e-4
    )
    assert err == (
        f"captioner: --file {file}: left out 2 lines without words\n"
        "captioner: a unicorn: the model does not know the word 'unicorn'\n"
    )
    code, out, _ = run(images[0], "--file", _write(file, b"a dog\nthe man\n"))
    assert code == 0
    assert out.count("perplexity") == 2


def test_control_characters_stay_on_one_line(run: Run, images: list[Path]) -> None:
    code, out, _ = run(images[0], "a dog\x1b[0m\n\tthe\x00 man\u2028")
    assert code == 2  # "0m" is a word
    code, out, _ = run(images[0], "a dog\x1b\n\tthe\x00 man\u2028")
    assert code == 0
    assert out.splitlines()[0] == "text        a dog\\x1b\\n\\tthe\\x00 man\\u2028"


def test_a_sentence_of_ten_thousand_words(run: Run, images: list[Path], tmp_path: Path) -> None:
    file = _write(tmp_path / "long.txt", b"the dog " * 5000)
    code, out, _ = run(images[0], "--file", file)
    assert code == 0
    assert out.count("\n") == 5 + 10_001
    assert out.splitlines()[0].endswith("the dog the dog ...")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a corgi runz"], "the model does not know the words 'corgi', 'runz' (did you mean runs?)"),
        ([""], "there is no word in TEXT"),
        (["?!"], "there is no word in TEXT"),
        (["a \udcff dog"], "the text 'a \\udcff dog' is not valid UTF-8"),
        ([], "give a TEXT or --file LINES"),
        (["a dog", "--file", "x"], "give a TEXT or --file LINES, not both"),
        (["--file", "absent.txt"], "--file absent.txt: cannot be read (No such file or directory)"),
        (["--file", "."], "--file .: cannot be read (Is a directory)"),
        (["--file", "null\0"], "--file null\\x00: cannot be read (embedded null byte)"),
        (["a dog", "--runners-up", "-1"], "runners_up must be 0 to 100, not -1"),
    ],
)
def test_wrong_use_is_one_line(run: Run, images: list[Path], arguments: list[str], message: str) -> None:
    code, out, err = run(images[0], *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"captioner: error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no text; give one text a line"),
        (b"\n \n...\n", "holds no text; give one text a line"),
        (b"a dog\nun caf\xe9\n", "line 2 is not UTF-8 text"),
        ("a dog\n".encode("utf-16"), "line 1 is not UTF-8 text"),
        (b"a dog\n" + b"a " * 100_001, "line 2: a text of 100,001 words is too long; at most 100,000"),
        (b"a\n" * 100_001, "has more than 100,000 lines"),
        (b"a" * (2**24 + 1), "is longer than 16 MiB"),
    ],
    ids=["empty", "no words", "Latin-1", "UTF-16", "long line", "many lines", "large"],
)
def test_files_that_are_not_lines_of_text(
    run: Run, images: list[Path], tmp_path: Path, content: bytes, message: str
) -> None:
    file = _write(tmp_path / "lines.txt", content)
    code, out, err = run(images[0], "--file", file)
    assert (code, out) == (2, "")
    assert err.startswith(f"captioner: error: --file {file}: {message}")
    assert err.count("\n") == 1


def test_a_image_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    code, out, err = run(tmp_path / "gone.jpg", "a dog")
    assert (code, out, err) == (2, "", f"captioner: error: {tmp_path}/gone.jpg: no such file\n")
