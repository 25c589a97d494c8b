"""``captioner train``: fit a model to captioned photographs."""

from __future__ import annotations

import argparse
import sys

from captioner.cli import INTERRUPTED
from captioner.cli.options import add_options, read_options
from captioner.datasets.options import DatasetOptions
from captioner.training.interruption import Interrupted
from captioner.training.options import TrainingOptions

SUMMARY = "Train a model on captioned photographs."
EXAMPLES = """\
examples:
  captioner train --dataset flickr8k --data DIR --output mine.safetensors
  captioner train --dataset coco --data DIR --encoder resnet50 --output coco.safetensors
  captioner train --dataset flickr8k:DIR table:MY_PHOTOS --output both.safetensors
  captioner train --dataset table --annotations captions.csv --images PHOTOS --output mine.safetensors

Ctrl-C saves; the same command with --resume goes on.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_options(parser, DatasetOptions, "data")
    add_options(parser, TrainingOptions, "training")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run")


def run(args: argparse.Namespace) -> int:
    """Train.

    Returns:
        Exit code: 0 after the whole run, 130 if it was interrupted.

    Raises:
        CaptionerError: data, options, disk or loss do not allow to go on.
    """
    datasets = read_options(args, DatasetOptions)
    options = read_options(args, TrainingOptions)

    from captioner.training.trainer import train

    try:
        print(train(datasets, options, resume=args.resume, overwrite=args.overwrite))
    except Interrupted as interruption:
        change = "--resume instead of --overwrite" if args.overwrite else "--resume"
        return _interrupted(f"{interruption}; to go on, give the same command with {change}")
    except KeyboardInterrupt:
        return _interrupted("photos encoded so far are kept; to go on, give the same command again")
    return 0


def _interrupted(text: str) -> int:
    print(f"captioner: interrupted; {text}", file=sys.stderr)
    return INTERRUPTED
