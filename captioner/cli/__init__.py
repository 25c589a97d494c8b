"""The command line: parse, call, print. One module for each group of commands; no logic lives here."""

import argparse
import errno
import importlib
import io
import os
import sys
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from captioner import CaptionerError, __version__
from captioner.cli.flags import INTERRUPTED, WRONG_USE, Command, one_line, say, weights_apart
from captioner.errors import needing

GROUPS = {
    "caption": {
        "caption": "Caption images and folders of images",
        "read": "Print the captions that image files hold already",
        "alt": "Write alt texts for the images of web pages",
        "merge": "Join the outputs of several shards",
        "serve": "Open a page in the browser that captions images",
    },
    "understand": {
        "score": "Print how probable a text is for an image, word by word",
        "rank": "Order texts by how well they fit an image",
        "explain": "Draw where the model looked when it wrote each word",
        "search": "Find the images of a folder that a sentence fits",
        "info": "Print what is inside a checkpoint",
    },
    "evaluate": {
        "evaluate": "Score captions against human captions, as COCO does",
        "compare": "Compare two results files by the paired bootstrap",
        "retrieval": "Measure how well a model finds images by their captions",
        "gradients": "Measure how gradients fade with time in recurrent cells",
    },
    "train": {
        "download": "Fetch a public data set: COCO, Flickr8k, Karpathy's splits",
        "data": "Tell what a data set holds, and what is wrong with it",
        "train": "Train a model on captioned images",
        "tune": "Find a checkpoint's best decoding options and store them",
        "calibrate": "Teach a checkpoint how sure its captions are",
        "classifier": "Give a checkpoint a classifier, to name what it sees",
        "export": "Prepare a checkpoint to run without torch",
    },
}
"""What each command does, by the groups of ``--help``; the commands of a group live in the module of its name."""

COMMANDS = tuple(name for group in GROUPS.values() for name in group)

_EXAMPLES = """\
examples:
  captioner caption photo.jpg                     one sentence on the screen
  captioner caption PHOTOS --format jsonl         every image of a folder
  captioner search PHOTOS "a dog on a beach"      its images that fit best
  captioner evaluate --dataset flickr8k --data DIR --split dev
  captioner train --dataset flickr8k --data DIR --output mine.safetensors
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Exit code: 0 all done, 1 some images failed, 2 wrong use, 130 interrupted.
    """
    if sys.stderr is None:  # it was closed: messages would be printed among the captions
        os.set_inheritable(os.dup2(os.open(os.devnull, os.O_RDWR), 2), True)  # by processes that read images
        sys.stderr = os.fdopen(2, "w")
    if sys.stdout is None:
        say("error: standard output is closed")
        return WRONG_USE
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names may hold bytes that are no text; in JSON the escape is even the correct one.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        try:
            given = weights_apart(sys.argv[1:] if arguments is None else arguments)
            args = build_parser(given).parse_args(given)
            with needing(f"captioner {given[0]}"):
                code: int = args.run(args)
            return code
        finally:
            sys.stdout.flush()
    except CaptionerError as error:
        if _reports_errors():
            say(f"error: {error}")
        return WRONG_USE
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone (such as ``head``): nothing is wrong
        _discard_output()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _discard_output()
        say("error: cannot write the output, the disk is full")
        return WRONG_USE


def _reports_errors() -> bool:
    """Of the processes that torchrun starts on a machine, only the first reports wrong use."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _discard_output() -> None:
    """Keep Python from writing the rest of the output again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Keeps the layout of descriptions, and answers wrong use with one line instead of a screenful of flags."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        text = f"{self.prog}: error: {one_line(message)}; see {self.prog} --help\n"
        self.exit(WRONG_USE, text if _reports_errors() else None)


def build_parser(flags_of: Collection[str] = COMMANDS) -> argparse.ArgumentParser:
    """Build the parser of all commands.

    Args:
        flags_of: the commands that get their flags, for which their module is imported; words that are no commands
            count for nothing. No such module imports torch.
    """
    parser = _Parser(
        usage="captioner [-h] [--version] COMMAND ...",
        description="Look at an image and write a sentence about it, on your own machine.",
        epilog=_summaries() + _EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"captioner {__version__}")
    commands = parser.add_subparsers(prog="captioner", metavar="COMMAND", help=argparse.SUPPRESS, required=True)
    for group, summaries in GROUPS.items():
        for name, summary in summaries.items():
            command = commands.add_parser(name, description=f"{summary}.")
            if name in flags_of:
                its: Command = importlib.import_module(f"captioner.cli.{group}").COMMANDS[name]
                its.add_arguments(command)
                command.epilog = its.examples
                command.set_defaults(run=its.run)
    return parser


def _summaries() -> str:
    """One line a command."""
    width = max(map(len, COMMANDS))
    return "".join(
        f"{group}:\n" + "".join(f"    {name:<{width}}  {summary}\n" for name, summary in summaries.items()) + "\n"
        for group, summaries in GROUPS.items()
    )
