"""``captioner train``: fit a model to captioned images."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from captioner.cli import INTERRUPTED
from captioner.cli.options import (
    add_options,
    given_values,
    read_configuration,
    read_options,
    write_configuration,
)
from captioner.datasets.options import DatasetOptions
from captioner.errors import OptionError
from captioner.interrupt import Interrupted
from captioner.training.options import TrainingOptions

SUMMARY = "Train a model on captioned images."
EXAMPLES = """\
examples:
  captioner train --dataset flickr8k --data DIR --output mine.safetensors
  captioner train --dataset coco --data DIR --encoder resnet50 --output coco.safetensors
  captioner train --dataset flickr8k:DIR table:MY_PHOTOS --output both.safetensors
  captioner train --dataset table --annotations captions.csv --images PHOTOS --output mine.safetensors
  captioner train --dataset codes --codes CODES.npy --captions CAPTIONS.json --output mine.safetensors
  captioner train --dataset flickr8k --data DIR --output mine.safetensors --print-config > mine.toml
  captioner train --config mine.toml --lr 5e-4

Ctrl-C saves; the same command with --resume goes on.
"""

GROUPS = {"data": DatasetOptions, "training": TrainingOptions}
"""All options of the command, by the headings of ``--help`` and of a configuration file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--config", metavar="FILE", help="take options from a TOML file; flags override it")
    parser.add_argument(
        "--print-config", action="store_true", help="print all options as such a file, and train nothing"
    )
    for title, options in GROUPS.items():
        add_options(parser, options, title)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run")


def run(args: argparse.Namespace) -> int:
    """Train.

    Returns:
        Exit code: 0 after the whole run, 130 if it was interrupted.

    Raises:
        CaptionerError: data, options, disk or loss do not allow to go on.
    """
    file = {} if args.config is None else read_configuration(args.config, list(GROUPS.values()))
    try:
        if args.print_config:
            print(write_configuration(_effective(args, file), GROUPS), end="")
            return 0
        datasets = read_options(args, DatasetOptions, values=file)
        options = read_options(args, TrainingOptions, values=file)
    except OptionError as error:
        if args.config is None:
            raise
        raise OptionError(f"{error} (options of {args.config} and of the command line)") from error

    from captioner.training.distributed import joined
    from captioner.training.run import train

    try:
        with joined() as world:
            print(train(datasets, options, resume=args.resume, overwrite=args.overwrite, world=world))
    except Interrupted as interruption:
        change = "--resume instead of --overwrite" if args.overwrite else "--resume"
        return _interrupted(f"{interruption}; to go on, give the same command with {change}")
    except KeyboardInterrupt:
        return _interrupted("images encoded so far are kept; to go on, give the same command again")
    return 0


def _effective(args: argparse.Namespace, file: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the options that flags or file give, and the encoder.

    Raises:
        OptionError: a value is refused; what must be given may be absent, though.
    """
    data, training = (given_values(args, options, file) for options in GROUPS.values())
    options = TrainingOptions(**{"output": "any.safetensors", **training})
    if "dataset" in data:
        vectors = DatasetOptions(**data).of_vectors
        training["encoder"] = options.with_encoder_for(vectors=vectors).encoder
    return data | training


def _interrupted(text: str) -> int:
    print(f"captioner: interrupted; {text}", file=sys.stderr)
    return INTERRUPTED
