"""``captioner evaluate``: caption the images of a data set and score them, or score a results file."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

from captioner.cli.model import add_model_arguments, load_captioner
from captioner.cli.options import add_options, read_options
from captioner.datasets.options import DatasetOptions
from captioner.decoding.options import DecodingOptions
from captioner.errors import OptionError
from captioner.evaluation.options import EvaluationOptions
from captioner.files import check_output

if TYPE_CHECKING:
    from captioner.datasets.records import ImageId
    from captioner.evaluation.captions import HumanCaptions
    from captioner.evaluation.evaluate import Provenance

SUMMARY = "Score captions against human captions, as the COCO server does."
EXAMPLES = """\
examples:
  captioner evaluate --dataset flickr8k --data DIR --split dev --output results.json
  captioner evaluate --dataset coco --images val2017 --annotations captions_val2017.json
  captioner evaluate --predictions results.json --annotations captions_val2017.json
  captioner evaluate --predictions results.json --dataset flickr8k --data DIR --split dev --report report.html
"""

# one caption for each image is judged, so there is no flag for how many are made
_SKIPPED = "num_captions"
_DECODING = [item.name for item in fields(DecodingOptions) if item.name not in (_SKIPPED, "seed")]
_ROUNDING = 1e-8  # COCO's small constants change BLEU by less
_GENERATING = ("weights", "encoder", "image_size", "resize", "output", "limit", *_DECODING)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("--predictions", metavar="FILE", help="score this results file; caption nothing")
    parser.add_argument("--output", metavar="FILE", help="write the captions in COCO's results format")
    parser.add_argument("--per-image", metavar="FILE", help="write the scores of every image as JSON, on a 0-1 scale")
    parser.add_argument("--report", metavar="FILE", help="write an HTML page with figures and images")
    parser.add_argument("--json", action="store_true", help="print one JSON object, figures on a 0-1 scale")
    add_options(parser, DatasetOptions, "data set")
    parser.add_argument("--split", help="split to evaluate (default: val; all of a COCO file given by name)")
    add_model_arguments(parser)
    add_options(parser, EvaluationOptions, "evaluation")
    parser.add_argument(
        "--novelty", action="store_true", help="report how many captions do not occur in the train split"
    )
    parser.add_argument(
        "--document-frequencies",
        metavar="FILE",
        help="table of CIDEr's document frequencies (default: those of the evaluated references)",
    )
    parser.add_argument(
        "--save-document-frequencies",
        metavar="FILE",
        help="write the table of document frequencies of the split's references, and stop",
    )
    add_options(parser, DecodingOptions, "decoding", skip=(_SKIPPED,))


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from captioner.evaluation.captions import training_captions, write_records
    from captioner.evaluation.evaluate import cross_check, evaluate
    from captioner.evaluation.report import evaluation_table, write_report
    from captioner.metrics.cider import DocumentFrequencies

    options = read_options(args, EvaluationOptions)
    if args.save_document_frequencies is not None:
        return _save_frequencies(args)
    _check_flags(args, options)
    # Everything that can be wrong is read before the long part begins.
    table = args.document_frequencies
    frequencies = None if table is None else DocumentFrequencies.load(table)
    seen = training_captions(read_options(args, DatasetOptions)) if args.novelty else None
    make = _generate if args.predictions is None else _read_predictions
    captions, human, provenance = make(args, options)
    # of images captioned here, those left out are counted as absent or unreadable
    subset = options.subset or args.predictions is None
    references = human.judging(
        captions, subset=subset, source=args.predictions or "the captions", frequencies=frequencies
    )
    evaluation = evaluate(captions, references, provenance, options, seed=args.seed or 0, training_captions=seen)
    if args.per_image is not None:
        write_records(args.per_image, evaluation.to_records())
    if args.report is not None:
        write_report(args.report, evaluation, human.images)
    if not args.json:
        print(evaluation_table(evaluation))
        return 0
    check = cross_check(evaluation, references)
    print(json.dumps(evaluation.to_dict() | {"cross_check": check}))
    difference = abs(check["difference"] or 0.0)
    if (check["nltk_bleu_4"] or 0.0) > _ROUNDING < difference:
        print(
            f"captioner: warning: BLEU-4 differs by {difference:.2g} from nltk's on the same tokens; "
            "one of them is wrong, please report this",
            file=sys.stderr,
        )
    return 0


def _check_flags(args: argparse.Namespace, options: EvaluationOptions) -> None:
    if args.predictions is None and args.dataset is None:
        raise OptionError("give --dataset to caption its images, or --predictions to score a results file")
    if args.predictions is None and options.subset:
        raise OptionError("--subset goes with --predictions", "use --limit to caption fewer images")
    if args.predictions is not None:
        for name in _GENERATING:
            if getattr(args, name) is not None:
                raise OptionError(f"`{name}` is about captioning images", "it does not go with --predictions")
    if args.novelty and args.dataset is None:
        raise OptionError("--novelty needs --dataset, to know the captions of its train split")
    if args.seed is not None and args.seed < 0:
        raise OptionError(f"--seed must be at least 0, not {args.seed}")
    check_output("output", args.output)
    check_output("per_image", args.per_image)
    check_output("report", args.report)


def _generate(
    args: argparse.Namespace, options: EvaluationOptions
) -> tuple[dict[ImageId, str], HumanCaptions, Provenance]:
    """Captions the images of the data set."""
    from tqdm import tqdm

    from captioner.evaluation.captions import HumanCaptions, find_images, write_results
    from captioner.evaluation.evaluate import Provenance
    from captioner.evaluation.generate import generate

    dataset = read_options(args, DatasetOptions)
    images = find_images(dataset, args.split, options.limit)
    human = HumanCaptions.from_records(images.records)
    captioner, decoding = load_captioner(args)
    with tqdm(total=len(images.records), unit="image", file=sys.stderr) as bar:
        made = generate(
            captioner,
            images.records,
            decoding,
            batch_size=args.batch_size,
            skip_unreadable=dataset.skip_missing,
            on_progress=bar.update,
        )
    if args.output is not None:
        write_results(args.output, made.captions)
    provenance = Provenance(
        data=images.name,
        available=images.available,
        checkpoint=captioner.digest,
        decoding=decoding,
        precision=str(captioner.dtype).removeprefix("torch."),
        absent=images.absent,
        unreadable=len(made.unreadable),
    )
    return made.captions, human, provenance


def _read_predictions(
    args: argparse.Namespace, options: EvaluationOptions
) -> tuple[dict[ImageId, str], HumanCaptions, Provenance]:
    """Reads the results file and what to judge it by."""
    from captioner.evaluation.captions import read_results
    from captioner.evaluation.evaluate import Provenance

    captions = read_results(args.predictions)
    human, name = find_human_captions(args)
    return captions, human, Provenance(name, len(human.captions))


def _save_frequencies(args: argparse.Namespace) -> int:
    from captioner.metrics.cider import DocumentFrequencies
    from captioner.metrics.evaluate import References

    human, name = find_human_captions(args)
    tokens = References(human.captions).tokens
    table = DocumentFrequencies.from_tokens(list(tokens.values()))
    table.save(args.save_document_frequencies)
    print(f"{args.save_document_frequencies}: document frequencies of {table.documents:,} images ({name})")
    return 0


def find_human_captions(args: argparse.Namespace) -> tuple[HumanCaptions, str]:
    """Reads the human captions that the flags of :func:`add_arguments` name, and says what to call them."""
    from captioner.evaluation.captions import find_references

    dataset = None if args.dataset is None else read_options(args, DatasetOptions)
    return find_references(dataset, args.split, annotations=args.annotations, images=args.images)
