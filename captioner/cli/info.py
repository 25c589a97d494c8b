"""``captioner info``: what is inside a checkpoint."""

from __future__ import annotations

import argparse
import json

from captioner.cli.options import one_line

SUMMARY = "Print what is inside a checkpoint."
EXAMPLES = """\
examples:
  captioner info                          the shipped weights
  captioner info mine.safetensors --json  for programs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("file", nargs="?", help="checkpoint (default: the shipped one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print a checkpoint's contents.

    Raises:
        CheckpointError: the file is absent, broken or foreign.
    """
    from captioner.captioner import find_weights
    from captioner.checkpoint import describe

    description = describe(find_weights(args.file))
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


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return one_line(text)
