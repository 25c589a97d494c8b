"""``captioner merge``: the outputs of shards become the output that one run would have written."""

import argparse
import sys

SUMMARY = "Put the outputs of shards together."
EXAMPLES = """\
examples:
  captioner caption PHOTOS --shard 1/2 --output part-1.jsonl      on one machine
  captioner caption PHOTOS --shard 2/2 --output part-2.jsonl      on another
  captioner merge part-1.jsonl part-2.jsonl --output captions.jsonl

The journals beside the shards (part-1.jsonl.journal) tell their order and whether all are there and
finished. Without them the shards are taken as they are, in the order given.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("shards", nargs="+", metavar="SHARD", help="output of one shard")
    parser.add_argument("--output", required=True, metavar="FILE", help="write here")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")


def run(args: argparse.Namespace) -> int:
    """Merge.

    Raises:
        CaptionerError: something is missing, given twice, not finished, or does not fit together.
    """
    from captioner.bulk.merge import merge

    if not merge(args.shards, args.output, overwrite=args.overwrite):
        print(
            "captioner: not every shard has its journal beside it: taken as they are, in the order given",
            file=sys.stderr,
        )
    return 0
