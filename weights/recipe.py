"""Train the shipped weights anew, from the pretrained encoder on.

    python weights/recipe.py --flickr8k DIR --wider DIR --unlabelled DIR --text FILE FILE --output DIR

Stopped at any moment, it goes on where it was when the same command is given again. On two cores it takes about ten
hours, and a GPU is used where there is one. What the folders hold is written in weights/README.md. The result is
``captioner.safetensors`` in the folder ``--output``, beside all that led to it. With ``--dry-run`` the commands are
printed and nothing is done; each runs on its own as well.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import subprocess
import sys
from pathlib import Path

from captioner.caption import features

# The encoder learns with the decoder, or hardly at all where the decoder learns from captions that it draws.
SEEN = "--attention-spread 0.3 --finetune-from 7 --encoder-lr 1e-4 --augment crop --dropout 0.4 --lr 1e-3 --epochs 8"
CRITICAL = (
    "--objective self_critical --cross-entropy-weight 0.2 --reward-end --attention-spread 0.1 --finetune-from 9 "
    "--encoder-lr 1e-5 --augment crop --dropout 0.3"
)
WORDS = "--attributes 16 --min-count 20"
SEARCH = "--beam-size 5 --no-repeat-ngram 2"


class Recipe:
    """The commands of captioner that the recipe is made of; each gives what it made."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.output: Path = args.output
        self.unlabelled: Path = args.unlabelled
        self.dry_run: bool = args.dry_run
        self.human = [f"flickr8k:{args.flickr8k}", f"table:{args.wider}"]
        self.texts = ["--text", *map(str, args.text)]

    def run(self, *arguments: str | Path, most: int = 0) -> None:
        """Run a command of captioner; stop the recipe where its exit code is above ``most``."""
        command = [sys.executable, "-m", "captioner", *map(str, arguments)]
        print("$", shlex.join(command[2:]), flush=True)
        if not self.dry_run and (code := subprocess.run(command, check=False).returncode) > most:
            sys.exit(code)

    def train(
        self, name: str, options: str, *, init: Path | None = None, pseudo: str = "", reads: bool = False
    ) -> Path:
        """Train with human captions, and perhaps with those of a table that a model wrote, and with texts."""
        result = self.output / f"{name}.safetensors"
        datasets = [*self.human, pseudo] if pseudo else self.human
        more = [*(self.texts if reads else ()), *(("--init", init) if init else ())]
        shared = ("--attention", "adaptive", "--ema", "0.998", "--patience", "0", "--cache", self.output / "cache")
        arguments = [*datasets, *shared, *shlex.split(options), *more, "--resume", "--output", result]
        self.run("train", "--dataset", *arguments)
        return result

    def classifier(self, weights: Path, name: str) -> Path:
        """Fit the encoder's classifier to the encoder as it is now."""
        result = self.output / f"{name}.safetensors"
        if self.dry_run or not result.exists():
            self.run("classifier", "--weights", weights, "--dataset", *self.human, "--output", result)
        return result

    def say(self, name: str, share: float, search: str, *weights: Path) -> str:
        """Caption the images that have no captions; give a table of the surest."""
        folder = self.output / name
        said = self.output / f"{name}.csv"
        how = [*shlex.split(f"{SEARCH} {search}"), "--format", "csv", "--output", str(said)]
        self.run("caption", self.unlabelled, "--weights", *weights, *how, most=1)  # some files may be damaged
        if not self.dry_run:
            folder.mkdir(exist_ok=True)
            keep_surest(said, folder / "captions.csv", share, self.unlabelled)
            if not (folder / "images").exists():
                (folder / "images").symlink_to(self.unlabelled.resolve())
        return f"table:{folder}"


def keep_surest(said: Path, kept: Path, share: float, images: Path) -> None:
    """Of captions of the images in a folder keep those with the highest log-probability for each word and the end."""
    with said.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not row["error"]]
    rows.sort(key=lambda row: features(float(row["log_prob"]), len(row["caption"].split()))[0], reverse=True)
    with kept.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption", "split"])
        for row in rows[: int(share * len(rows))]:
            table.writerow([Path(row["image"]).relative_to(images), row["caption"].rstrip(".").lower(), "train"])


def last_epoch(result: Path) -> Path:
    """Give the last epoch of a training rather than its best."""
    return result.with_suffix(".run") / "last.safetensors"


def main(arguments: list[str] | None = None) -> int:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flickr8k", type=Path, required=True, help="Flickr8k, its train and dev splits")
    parser.add_argument("--wider", type=Path, required=True, help="table of other images with captions")
    parser.add_argument("--unlabelled", type=Path, required=True, help="images without captions")
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="captions without images")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    args = parser.parse_args(arguments)
    if not args.dry_run:
        args.output.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(args)
    # A first model, without attributes and texts, says what it sees in images that have no captions.
    first = recipe.train("first", f"{SEEN} --min-count 5")
    second = recipe.train("second", f"{CRITICAL} --min-count 5 --lr 1.5e-4 --epochs 4", init=last_epoch(first))
    named = recipe.classifier(last_epoch(second), "named")
    pseudo = recipe.say("round1", 0.7, "--length-penalty 0.8 --tag-threshold 0.3", named)
    # Two models that have read more, and learnt from that, say it again together.
    reading = f"{WORDS} --attention-spread 0.1 --dropout 0.4 --lr 7e-4 --epochs 3"
    words = recipe.train("words", reading, init=last_epoch(second), pseudo=pseudo, reads=True)
    drawing = f"{CRITICAL} {WORDS}"
    teachers = [
        recipe.train(f"teacher{seed}", f"{drawing} --lr 2e-4 --epochs 2 --seed {seed}", init=words) for seed in (0, 1)
    ]
    pseudo = recipe.say("round2", 0.75, "--length-penalty 1 --consensus", *teachers)
    # The shipped model begins anew, with all of this.
    student = recipe.train("student", f"{SEEN} {WORDS}", pseudo=pseudo, reads=True)
    critical = recipe.train("critical", f"{drawing} --lr 1.5e-4 --epochs 2", init=last_epoch(student))
    result = recipe.classifier(critical, "captioner")
    grid = shlex.split(f"{SEARCH} --length-penalty 0.8 1 --consensus yes no --tag-threshold 0 0.2 0.25 0.3")
    recipe.run("tune", "--weights", result, "--dataset", *recipe.human, *grid)
    recipe.run("calibrate", "--weights", result, "--dataset", *recipe.human, "--split", "val")
    return 0


if __name__ == "__main__":
    sys.exit(main())
