"""``captioner serve``: the page in the browser."""

import argparse

from captioner.cli.options import add_options, read_options
from captioner.web.options import ServingOptions

SUMMARY = "Open the page in which images are captioned."
EXAMPLES = """\
examples:
  captioner serve                                    on this machine, http://127.0.0.1:7860
  captioner serve --weights mine.safetensors --port 8080
  captioner serve --host 0.0.0.0 --auth-file users   for others, with a password
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_options(parser, ServingOptions, "serving")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C.

    Raises:
        CaptionerError: something that the options name cannot be used, or the address is taken.
    """
    options = read_options(args, ServingOptions)

    from captioner.web.server import serve

    serve(options)
    return 0
