"""``captioner gradients``: how far back do gradients reach in each cell?"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from captioner.cli.options import add_options, read_options
from captioner.datasets.options import DatasetOptions
from captioner.errors import OptionError
from captioner.gradients.options import NO_PLOT, GradientOptions

if TYPE_CHECKING:
    from captioner.datasets.records import Record

SUMMARY = "Measure how gradients fade with time in recurrent cells, fresh or trained."
EXAMPLES = """\
examples:
  captioner gradients                                   all cells as they start
  captioner gradients --cell rnn lstm --length 50 --plot cells.svg
  captioner gradients --cell rnn --gain 2 --plot none   recurrent matrix: a rotation times 2
  captioner gradients --weights rnn.safetensors lstm.safetensors --dataset flickr8k --data DIR

The CSV file holds, for each model and each lag T - t, the norm of the gradient of the loss of word T by the
state after word t (for the lstm h and c together), by its hidden part alone, and the former as a share of
that at lag 0, which is what is printed and drawn.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_options(parser, GradientOptions, "measurement")
    add_options(parser, DatasetOptions, "captions for trained checkpoints to read (default: random words)")
    parser.add_argument("--split", help="split of the captions (default: val)")


def run(args: argparse.Namespace) -> int:
    """Measure, write and print.

    Raises:
        CaptionerError: an option, a checkpoint, the data or an output file is refused.
    """
    options = read_options(args, GradientOptions)
    records = _records(args, options)

    from captioner.files import check_plotting
    from captioner.gradients.measure import measure
    from captioner.gradients.models import subjects
    from captioner.gradients.report import table, write_csv, write_plot

    if options.plot != NO_PLOT:
        check_plotting(f"give --plot {NO_PLOT}")
    curves = [
        measure(model, decoder, regions, words, trained=trained)
        for model, decoder, regions, words, trained in subjects(options, records)
    ]
    write_csv(options.output, curves)
    written = options.output
    if options.plot != NO_PLOT:
        write_plot(options.plot, curves)
        written += f" and {options.plot}"
    print(table(curves))
    print(f"wrote {written}", file=sys.stderr)
    return 0


def _records(args: argparse.Namespace, options: GradientOptions) -> list[Record]:
    if args.dataset is None:
        if args.data is not None or args.split is not None:
            raise OptionError("--data and --split go with --dataset, which says what kind of data set it is")
        return []
    if not options.weights:
        raise OptionError("--dataset gives trained checkpoints real captions", "name some with --weights")

    from captioner.datasets import present, read_records

    dataset = read_options(args, DatasetOptions)
    records = read_records(dataset, args.split or "val")
    if dataset.of_vectors:
        return records
    return present(records, dataset.skip_missing)[0]
