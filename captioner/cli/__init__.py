"""The command line: parse, call, print. One module a sub-command; no logic lives here."""

import argparse
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from captioner import __version__
from captioner.cli.model import weights_apart
from captioner.cli.options import one_line
from captioner.errors import CaptionerError
from captioner.options import with_flags

COMMANDS = (
    "caption",
    "merge",
    "serve",
    "score",
    "rank",
    "explain",
    "search",
    "evaluate",
    "compare",
    "retrieval",
    "tune",
    "calibrate",
    "train",
    "classifier",
    "gradients",
    "download",
    "info",
)

_EXAMPLES = """\
examples:
  captioner caption photo.jpg                     one sentence on the screen
  captioner caption PHOTOS --format jsonl         every image of a folder
  captioner search PHOTOS "a dog on a beach"      its images that fit best
  captioner evaluate --dataset flickr8k --data DIR --split dev
  captioner train --dataset flickr8k --data DIR --output mine.safetensors
"""

INTERRUPTED = 130
WRONG_USE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Exit code: 0 all done, 1 some images failed, 2 wrong use, 130 interrupted.
    """
    if sys.stdout is None:
        print("captioner: error: standard output is closed", file=sys.stderr)
        return WRONG_USE
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names may hold bytes that are no text; in JSON the escape is even the correct one.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        try:
            given = sys.argv[1:] if arguments is None else arguments
            args = build_parser().parse_args(weights_apart(given))
            code: int = args.run(args)
            return code
        finally:
            sys.stdout.flush()
    except CaptionerError as error:
        if _tells():
            print(f"captioner: error: {one_line(with_flags(str(error)))}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        print("captioner: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone (such as ``head``): nothing is wrong
        _discard_output()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _discard_output()
        print("captioner: error: cannot write the output, the disk is full", file=sys.stderr)
        return WRONG_USE


def _tells() -> bool:
    """Whether this process tells of wrong use: of those that torchrun starts on a machine, the first."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _discard_output() -> None:
    """Keep Python from writing the rest of the output again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Answers wrong use with one line instead of a screenful of flags."""

    def error(self, message: str) -> NoReturn:
        text = f"{self.prog}: error: {one_line(message)}; see {self.prog} --help\n"
        self.exit(WRONG_USE, text if _tells() else None)


def build_parser() -> argparse.ArgumentParser:
    """The parser with all sub-commands. Imports neither torch nor any other heavy package."""
    parser = _Parser(
        prog="captioner",
        description="Looks at an image and writes a sentence about it, on your own machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"captioner {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"captioner.cli.{name}")
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
