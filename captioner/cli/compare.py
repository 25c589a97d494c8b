"""``captioner compare``: is one set of captions better than another, or is it chance?"""

import argparse
import json
from dataclasses import replace

from captioner.cli.evaluate import find_human_captions
from captioner.cli.options import add_options, read_options
from captioner.datasets.options import DatasetOptions
from captioner.errors import OptionError
from captioner.evaluation.options import EvaluationOptions

SUMMARY = "Compare two results files by the paired bootstrap."
EXAMPLES = """\
examples:
  captioner compare A.json B.json --annotations captions_val2017.json
  captioner compare A.json B.json --dataset flickr8k --data DIR --split dev --top 20
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("first", metavar="A.json", help="results file to start from")
    parser.add_argument("second", metavar="B.json", help="results file that may be better")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="images to name (default: 10)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, figures on a 0-1 scale")
    parser.add_argument("--document-frequencies", metavar="FILE", help="table of CIDEr's frequencies")
    add_options(parser, DatasetOptions, "data set", skip=("skip_missing",))
    parser.add_argument("--split", help="split to judge by (default: val; all of a COCO file given by name)")
    add_options(parser, EvaluationOptions, "evaluation", skip=("limit", "meteor"))


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from captioner.evaluation.captions import read_results
    from captioner.evaluation.evaluate import Provenance, check_same_images, compare_evaluations, evaluate
    from captioner.evaluation.report import comparison_table
    from captioner.metrics.cider import DocumentFrequencies
    from captioner.metrics.evaluate import check_ids

    # METEOR has no figures of single images to resample
    options = replace(read_options(args, EvaluationOptions), meteor=False)
    if options.bootstrap < 1:
        raise OptionError("--bootstrap must be at least 1: a comparison rests on it")
    if args.top < 0 or args.seed < 0:
        raise OptionError("--top and --seed must be at least 0")
    table = args.document_frequencies
    frequencies = None if table is None else DocumentFrequencies.load(table)
    first, second = read_results(args.first), read_results(args.second)
    human, name = find_human_captions(args)
    references = human.judging(first, subset=options.subset, source=args.first, frequencies=frequencies)
    check_ids(second, human.captions, subset=options.subset, source=args.second)
    check_same_images(first, second)
    provenance = Provenance(name, len(human.captions))
    evaluations = [evaluate(captions, references, provenance, options, seed=args.seed) for captions in (first, second)]
    comparison = compare_evaluations(*evaluations, resamples=options.bootstrap, seed=args.seed, top=args.top)
    print(json.dumps(comparison.to_dict()) if args.json else comparison_table(comparison))
    return 0
