"""The recipe of the shipped weights: commands that captioner takes, and the surest captions of a table."""

import csv
import runpy
import shlex
from pathlib import Path

import pytest

from captioner.cli import build_parser
from captioner.cli.flags import weights_apart

RECIPE = runpy.run_path(str(Path(__file__).parents[2] / "weights" / "recipe.py"))


def test_every_command_is_one_that_captioner_takes(capsys: pytest.CaptureFixture[str]) -> None:
    folders = "--flickr8k F --wider W --unlabelled U --text T1 T2 --output 'absent folder'"
    assert RECIPE["main"]([*shlex.split(folders), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    made = set()
    for line in lines:
        dollar, program, *arguments = shlex.split(line)
        assert (dollar, program) == ("$", "captioner")
        args = build_parser(arguments).parse_args(weights_apart(arguments))
        needed = [args.init] if arguments[0] == "train" else getattr(args, "weights", None) or []
        for weights in [needed] if isinstance(needed, str) else needed:
            if weights is not None:  # trained by a command before this one
                assert Path(weights.replace(".run/last", "")) in made
        if arguments[0] in ("train", "classifier"):
            made.add(Path(args.output))
    assert len(lines) == 13
    assert not Path("absent folder").exists()


def test_the_surest_captions_are_kept(tmp_path: Path) -> None:
    said, kept = tmp_path / "said.csv", tmp_path / "captions.csv"
    rows = [
        ("U/of/long.jpg", "A dog runs over the sand.", -7.0, ""),  # a nat for each word and the end
        ("U/short.jpg", "A dog.", -6.0, ""),  # two
        ("U/broken.jpg", "", "", "cannot be read"),
        ("U/sure.jpg", "A cat.", -0.3, ""),
    ]
    with said.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption", "log_prob", "error"), *rows])
    RECIPE["keep_surest"](said, kept, 0.7, Path("U"))
    assert kept.read_text().splitlines() == [
        "image,caption,split",
        "sure.jpg,a cat,train",
        "of/long.jpg,a dog runs over the sand,train",
    ]
