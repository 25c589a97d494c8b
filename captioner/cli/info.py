"""``captioner info``: what is inside a checkpoint."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from captioner.cli.options import checked_values, one_line, write_configuration
from captioner.cli.train import GROUPS
from captioner.errors import CheckpointError, OptionError

SUMMARY = "Print what is inside a checkpoint."
EXAMPLES = """\
examples:
  captioner info                          the shipped weights
  captioner info mine.safetensors --json  for programs
  captioner info mine.safetensors --config > mine.toml
                                          how to train it again: captioner train --config mine.toml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("file", nargs="?", help="checkpoint (default: the shipped one)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument(
        "--config", action="store_true", help="print the options it was trained with as a configuration file"
    )


def run(args: argparse.Namespace) -> int:
    """Print a checkpoint's contents.

    Raises:
        CheckpointError: the file is absent, broken or foreign.
    """
    from captioner.saving import describe
    from captioner.weights import find_weights, read_header

    path = find_weights(args.file)
    if args.config:
        print(_configuration(path, read_header(path).training), end="")
        return 0
    description = describe(path)
    if args.json:
        print(json.dumps(description, ensure_ascii=False, indent=2))
        return 0
    for name, value in description.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                print(f"  {one_line(key)}: {_shown(item)}")
        else:
            print(f"{name}: {_shown(value)}")
    return 0


def _configuration(path: Path, training: Mapping[str, object]) -> str:
    """The options of a training as a file that ``captioner train --config`` takes."""
    datasets, options = training.get("datasets"), training.get("options")
    if not isinstance(datasets, dict) or not isinstance(options, dict):
        raise CheckpointError(f"{path}: does not tell the options it was trained with")
    # The recorded options name the checkpoint that training went on from by its digest; beside is its file.
    table = {**datasets, **options, "init": training.get("init"), "output": path.name}
    given = {name: value for name, value in table.items() if value is not None}
    try:
        values = checked_values(given, list(GROUPS.values()), where=str(path))
    except OptionError as error:
        raise CheckpointError(str(error), "another captioner trained it, its options cannot be given back") from error
    return write_configuration(values, GROUPS)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return one_line(text)
