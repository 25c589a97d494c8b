"""``captioner tune``: the decoding options that suit a checkpoint best become its defaults."""

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

from captioner.cli.model import add_model_arguments, open_captioner
from captioner.cli.options import add_options, read_options
from captioner.datasets.options import DatasetOptions
from captioner.decoding.options import DecodingOptions
from captioner.files import check_output
from captioner.options import flag_of, with_flags
from captioner.training.options import SELECTION_METRICS

SUMMARY = "Choose decoding options on images that were not trained on, and note them in the checkpoint."
EXAMPLES = """\
examples:
  captioner tune --weights mine.safetensors --dataset flickr8k --data DIR \\
      --beam-size 3 5 8 --length-penalty 0.7 1 --no-repeat-ngram 2 3
  captioner tune --dataset flickr8k:DIR table:OTHER --tag-threshold 0 0.3 --consensus yes no --dry-run

All combinations of the values given are tried; what is not given stays as the checkpoint has it. Several
data sets count alike, however many images they hold.
"""
_CHOICES = ("beam_size", "length_penalty", "no_repeat_ngram", "consensus", "tag_threshold")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    group = parser.add_argument_group("values to try")
    hints = get_type_hints(DecodingOptions)
    for item in fields(DecodingOptions):
        if item.name in _CHOICES:
            kind = hints[item.name]
            group.add_argument(
                flag_of(item.name),
                dest=f"{item.name}_values",  # what read_options reads is a single value
                nargs="+",
                type=_yes_or_no if kind is bool else kind,
                metavar={int: "N", float: "X", bool: "yes/no"}[kind],
                help=with_flags(item.metadata["help"]),
            )
    group.add_argument(
        "--select-by",
        choices=SELECTION_METRICS,
        default="CIDEr",
        help="score that decides (default: CIDEr)",
    )
    group.add_argument("--output", metavar="FILE", help="write the checkpoint here (default: replace --weights)")
    group.add_argument("--dry-run", action="store_true", help="print the figures and write nothing")
    add_options(parser, DatasetOptions, "data set")
    parser.add_argument("--split", default="val", help="split to tune on (default: val)")
    add_model_arguments(parser, several=False)


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"must be yes or no, not {text!r}")
    return text == "yes"


def run(args: argparse.Namespace) -> int:
    """Try, print and write.

    Raises:
        CaptionerError: an option, the checkpoint, the data or an output file is refused.
    """
    datasets = read_options(args, DatasetOptions)
    check_output("output", args.output)

    from tqdm import tqdm

    from captioner.datasets import present, read_each
    from captioner.evaluation.tune import best_of, encode_images, grid, trials_table, try_out
    from captioner.saving import write_metadata
    from captioner.weights import find_weights, peek

    choices = {name: getattr(args, f"{name}_values") or () for name in _CHOICES}
    grid(DecodingOptions(), choices)  # wrong values are told before minutes of work
    parts = [(label, present(records, datasets.skip_missing)[0]) for label, records in read_each(datasets, args.split)]
    captioner = open_captioner(args)
    tries = grid(captioner.options, choices)
    total = sum(len(records) for _, records in parts)
    with tqdm(total=total, desc="encoding", unit="image", file=sys.stderr, leave=False) as bar:
        sets = [
            encode_images(
                captioner,
                label,
                records,
                batch_size=args.batch_size,
                skip_unreadable=datasets.skip_missing,
                on_progress=bar.update,
            )
            for label, records in parts
        ]
    trials = []
    with tqdm(tries, "trying", unit="trial", file=sys.stderr, leave=False) as bar:
        for options in bar:
            trial = try_out(captioner, sets, options, select_by=args.select_by, batch_size=args.batch_size)
            trials.append(trial)
    print(trials_table(trials, args.select_by))
    if args.dry_run:
        return 0
    weights = find_weights(args.weights)
    output = weights if args.output is None else Path(args.output)
    best = best_of(trials).options
    entries: dict[str, str | None] = {"decoding": json.dumps(best.to_dict())}
    if best != captioner.options and "confidence" in peek(weights).metadata:
        entries["confidence"] = None
        print("its confidence was of captions written otherwise: run captioner calibrate", file=sys.stderr)
    write_metadata(weights, output, entries)
    print(f"wrote {output}", file=sys.stderr)
    return 0
