"""``captioner retrieval``: how good a model is at finding images by their captions."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from captioner.cli.model import add_model_arguments, read_checkpoint
from captioner.cli.options import add_options, read_options
from captioner.datasets.options import DatasetOptions
from captioner.search import RetrievalOptions

if TYPE_CHECKING:
    from captioner.evaluation.retrieval import Retrieval

SUMMARY = "Judge a model by retrieval: does an image's first caption find the image among all others?"
EXAMPLES = """\
examples:
  captioner retrieval --dataset flickr8k --data DIR --split dev
  captioner retrieval --dataset coco --images val2017 --annotations captions_val2017.json --limit 100

prints the share of captions whose image is among the first 1, 5 and 10, and the median rank; words that the
model does not know are left out of the captions and counted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, figures on a 0-1 scale")
    add_options(parser, DatasetOptions, "data set")
    parser.add_argument("--split", help="split to search (default: val; all of a COCO file given by name)")
    add_options(parser, RetrievalOptions, "retrieval")
    add_model_arguments(parser, batches=False, several=False)


def run(args: argparse.Namespace) -> int:
    """Search for each image of a data set.

    Raises:
        CaptionerError: wrong use, absent weights, or images that are absent or broken and not to be skipped.
    """
    datasets = read_options(args, DatasetOptions)
    options = read_options(args, RetrievalOptions)

    from captioner.evaluation.captions import find_images
    from captioner.evaluation.retrieval import retrieve_images

    images = find_images(datasets, args.split, options.limit)
    found = retrieve_images(
        read_checkpoint(args),
        images.records,
        cache=options.cache,
        skip_broken=datasets.skip_missing,
        device=args.device,
        precision=args.precision,
    )
    left_out = images.absent + found.broken
    if args.json:
        print(json.dumps({"data": images.name, "left_out": left_out, **found.to_dict()}))
    else:
        print("\n".join(_table(found, images.name, left_out)))
    return 0


def _table(found: Retrieval, name: str, left_out: int) -> list[str]:
    from captioner.evaluation.retrieval import RECALLS

    count = len(found.ranks)
    skipped = f" ({left_out:,} left out, absent or broken)" if left_out else ""
    words = f"{found.dropped:,} unknown words left out of {found.shortened:,} captions"
    lines = [f"{name}: {count:,} images{skipped}, the first caption of each as query; {words}", ""]
    lines += [f"{f'recall@{most}':<12}{100 * found.recall(most):>7.1f} %" for most in RECALLS]
    return [*lines, f"{'median rank':<12}{found.median_rank:>7g} of {count:,}"]
