"""``captioner evaluate``, ``compare``, ``retrieval`` and ``gradients``: how good captions and models are."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import fields, replace

import captioner
from captioner.cli import flags
from captioner.datasets import ImageId, present, read_records
from captioner.evaluation import captions as files
from captioner.evaluation import report
from captioner.evaluation.evaluate import Provenance, check_same_images, compare_evaluations, cross_check, evaluate
from captioner.evaluation.options import EvaluationOptions
from captioner.files import check_output, check_plotting
from captioner.gradients.options import NO_PLOT, GradientOptions
from captioner.metrics.coco import DocumentFrequencies
from captioner.metrics.evaluate import References, check_ids
from captioner.search.options import RetrievalOptions

# One caption for each image is judged, so there is no flag for how many are made.
_SKIPPED = "num_captions"
_DECODING = [item.name for item in fields(captioner.DecodingOptions) if item.name not in (_SKIPPED, "seed")]
_GENERATING = ("weights", "encoder", "image_size", "resize", "output", "limit", *_DECODING)
_NUMBERS = {"fp32": "float32", "bf16": "bfloat16"}
_ROUNDING = 1e-8  # COCO's small constants change BLEU by less


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--predictions", metavar="FILE", help="score this results file; caption nothing")
    parser.add_argument("--output", metavar="FILE", help="write the captions in COCO's results format")
    parser.add_argument("--per-image", metavar="FILE", help="write the scores of every image as JSON, on a 0-1 scale")
    parser.add_argument("--report", metavar="FILE", help="write an HTML page with figures and images")
    parser.add_argument("--json", action="store_true", help="print one JSON object, figures on a 0-1 scale")
    flags.add_options(parser, captioner.DatasetOptions, "data set")
    parser.add_argument("--split", help="split to evaluate (default: val; all of a COCO file given by name)")
    flags.add_model_arguments(parser)
    flags.add_options(parser, EvaluationOptions, "evaluation")
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
    flags.add_options(parser, captioner.DecodingOptions, "decoding", skip=(_SKIPPED,))


def _evaluate(args: argparse.Namespace) -> int:
    options = flags.read_options(args, EvaluationOptions)
    if args.save_document_frequencies is not None:
        return _save_frequencies(args)
    _check_flags(args, options)
    # Everything that can be wrong is read before the long part begins.
    frequencies = _frequencies(args)
    seen = files.training_captions(flags.read_options(args, captioner.DatasetOptions)) if args.novelty else None
    if args.predictions is None:
        captions, human, provenance = _generate(args, options)
    else:
        named = files.read_results(args.predictions)
        human, name = _human_captions(args)
        captions = human.by_id(named, args.predictions)
        provenance = Provenance(name, len(human.captions))
    # of images captioned here, those left out are counted as absent or unreadable
    subset = options.subset or args.predictions is None
    references = human.judging(
        captions, subset=subset, source=args.predictions or "the captions", frequencies=frequencies
    )
    evaluation = evaluate(
        captions, references, provenance, options, seed=args.seed or 0, training_captions=seen, domains=human.domains
    )
    if args.per_image is not None:
        files.write_records(args.per_image, evaluation.to_records())
    if args.report is not None:
        report.write_report(args.report, evaluation, human.images)
    if not args.json:
        print(report.evaluation_table(evaluation))
        return flags.DONE
    check = cross_check(evaluation, references)
    print(json.dumps(evaluation.to_dict() | {"cross_check": check}))
    difference = abs(check["difference"] or 0.0)
    if (check["nltk_bleu_4"] or 0.0) > _ROUNDING < difference:
        flags.say(
            f"warning: BLEU-4 differs by {difference:.2g} from nltk's on the same tokens; "
            "one of them is wrong, please report this"
        )
    return flags.DONE


def _check_flags(args: argparse.Namespace, options: EvaluationOptions) -> None:
    if args.predictions is None and args.dataset is None:
        raise captioner.OptionError("give `dataset` to caption its images, or `predictions` to score a results file")
    if args.predictions is None and options.subset:
        raise captioner.OptionError("`subset` goes with `predictions`", "use `limit` to caption fewer images")
    if args.predictions is not None:
        for name in _GENERATING:
            if getattr(args, name) is not None:
                raise captioner.OptionError(f"`{name}` is about captioning images", "it does not go with `predictions`")
    if args.novelty and args.dataset is None:
        raise captioner.OptionError("`novelty` needs `dataset`, to know the captions of its train split")
    if args.seed is not None and args.seed < 0:
        raise captioner.OptionError(f"`seed` must be at least 0, not {args.seed}")
    check_output("output", args.output)
    check_output("per_image", args.per_image)
    check_output("report", args.report)


def _generate(
    args: argparse.Namespace, options: EvaluationOptions
) -> tuple[Mapping[ImageId, str], files.HumanCaptions, Provenance]:
    """Caption the images of the data set."""
    from captioner.evaluation.generate import generate

    dataset = flags.read_options(args, captioner.DatasetOptions)
    images = files.find_images(dataset, args.split, options.limit)
    human = files.HumanCaptions.from_records(images.records)
    model, decoding = flags.load_captioner(args)
    with flags.progress_bar(len(images.records)) as bar:
        made = generate(
            model,
            images.records,
            decoding,
            batch_size=args.batch_size,
            skip_unreadable=dataset.skip_missing,
            on_progress=bar.update,
        )
    if args.output is not None:
        files.write_results(args.output, made.captions)
    provenance = Provenance(
        data=images.name,
        available=images.available,
        checkpoint=model.digest,
        decoding=decoding,
        precision=_NUMBERS.get(model.precision, model.precision),
        absent=images.absent,
        unreadable=len(made.unreadable),
    )
    return made.captions, human, provenance


def _save_frequencies(args: argparse.Namespace) -> int:
    human, name = _human_captions(args)
    table = DocumentFrequencies.from_tokens(list(References(human.captions).tokens.values()))
    table.save(args.save_document_frequencies)
    print(f"{args.save_document_frequencies}: document frequencies of {table.documents:,} images ({name})")
    return flags.DONE


def _frequencies(args: argparse.Namespace) -> DocumentFrequencies | None:
    return None if args.document_frequencies is None else DocumentFrequencies.load(args.document_frequencies)


def _human_captions(args: argparse.Namespace) -> tuple[files.HumanCaptions, str]:
    """Read the human captions to judge by, and what to call them."""
    dataset = None if args.dataset is None else flags.read_options(args, captioner.DatasetOptions)
    return files.find_references(dataset, args.split, annotations=args.annotations, images=args.images)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A.json", help="results file to start from")
    parser.add_argument("second", metavar="B.json", help="results file that may be better")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="images to name (default: 10)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, figures on a 0-1 scale")
    parser.add_argument("--document-frequencies", metavar="FILE", help="table of CIDEr's frequencies")
    flags.add_options(parser, captioner.DatasetOptions, "data set", skip=("skip_missing",))
    parser.add_argument("--split", help="split to judge by (default: val; all of a COCO file given by name)")
    flags.add_options(parser, EvaluationOptions, "evaluation", skip=("limit", "meteor", "spice"))


def _compare(args: argparse.Namespace) -> int:
    # METEOR has no figures of single images to resample
    options = replace(flags.read_options(args, EvaluationOptions), meteor=False, spice=False)
    if options.bootstrap < 1:
        raise captioner.OptionError("`bootstrap` must be at least 1: a comparison rests on it")
    if args.top < 0 or args.seed < 0:
        raise captioner.OptionError("`top` and `seed` must be at least 0")
    frequencies = _frequencies(args)
    named = {file: files.read_results(file) for file in (args.first, args.second)}
    human, name = _human_captions(args)
    first, second = (human.by_id(named[file], file) for file in (args.first, args.second))
    references = human.judging(first, subset=options.subset, source=args.first, frequencies=frequencies)
    check_ids(second, human.captions, subset=options.subset, source=args.second)
    check_same_images(first, second)
    provenance = Provenance(name, len(human.captions))
    evaluations = [evaluate(captions, references, provenance, options, seed=args.seed) for captions in (first, second)]
    comparison = compare_evaluations(*evaluations, resamples=options.bootstrap, seed=args.seed, top=args.top)
    print(json.dumps(comparison.to_dict()) if args.json else report.comparison_table(comparison))
    return flags.DONE


def _add_retrieval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object, figures on a 0-1 scale")
    flags.add_options(parser, captioner.DatasetOptions, "data set")
    parser.add_argument("--split", help="split to search (default: val; all of a COCO file given by name)")
    flags.add_options(parser, RetrievalOptions, "retrieval")
    flags.add_model_arguments(parser, batches=False, several=False)


def _retrieval(args: argparse.Namespace) -> int:
    datasets = flags.read_options(args, captioner.DatasetOptions)
    options = flags.read_options(args, RetrievalOptions)

    from captioner.evaluation.retrieval import RECALLS, retrieve_images

    images = files.find_images(datasets, args.split, options.limit)
    found = retrieve_images(
        flags.open_captioner(args), images.records, cache=options.cache, skip_broken=datasets.skip_missing
    )
    left_out = images.absent + found.broken
    if args.json:
        print(json.dumps({"data": images.name, "left_out": left_out, **found.to_dict()}))
        return flags.DONE
    count = len(found.ranks)
    skipped = f" ({left_out:,} left out, absent or broken)" if left_out else ""
    words = f"{found.dropped:,} unknown words left out of {found.shortened:,} captions"
    print(f"{images.name}: {count:,} images{skipped}, the first caption of each as query; {words}\n")
    for most in RECALLS:
        print(f"{f'recall@{most}':<12}{100 * found.recall(most):>7.1f} %")
    print(f"{'median rank':<12}{found.median_rank:>7g} of {count:,}")
    return flags.DONE


def _add_gradients(parser: argparse.ArgumentParser) -> None:
    flags.add_options(parser, GradientOptions, "measurement")
    flags.add_options(
        parser, captioner.DatasetOptions, "captions for trained checkpoints to read (default: random words)"
    )
    parser.add_argument("--split", help="split of the captions (default: val)")


def _gradients(args: argparse.Namespace) -> int:
    options = flags.read_options(args, GradientOptions)
    records = _gradient_records(args, options)

    from captioner.gradients.measure import measure, subjects, table, write_csv, write_plot

    if options.plot != NO_PLOT:
        check_plotting(f"give `plot` {NO_PLOT}")
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
    return flags.DONE


def _gradient_records(args: argparse.Namespace, options: GradientOptions) -> list[captioner.Record]:
    if args.dataset is None:
        if args.data is not None or args.split is not None:
            raise captioner.OptionError("`data` and `split` go with `dataset`, which says what kind of data set it is")
        return []
    if not options.weights:
        raise captioner.OptionError("`dataset` gives trained checkpoints real captions", "name some with `weights`")
    dataset = flags.read_options(args, captioner.DatasetOptions)
    records = read_records(dataset, args.split or "val")
    return records if dataset.of_vectors else present(records, dataset.skip_missing)[0]


_EVALUATE_EXAMPLES = """\
examples:
  captioner evaluate --dataset flickr8k --data DIR --split dev --output results.json
  captioner evaluate --dataset coco --images val2017 --annotations captions_val2017.json
  captioner evaluate --predictions results.json --annotations captions_val2017.json
  captioner evaluate --predictions results.json --dataset flickr8k --data DIR --split dev --report report.html
"""

_COMPARE_EXAMPLES = """\
examples:
  captioner compare A.json B.json --annotations captions_val2017.json
  captioner compare A.json B.json --dataset flickr8k --data DIR --split dev --top 20
"""

_RETRIEVAL_EXAMPLES = """\
examples:
  captioner retrieval --dataset flickr8k --data DIR --split dev
  captioner retrieval --dataset coco --images val2017 --annotations captions_val2017.json --limit 100

The first caption of each image is searched for among all images. Printed are the share of captions whose image
is among the first 1, 5 and 10, and the median rank. Words that the model does not know are left out of the
captions and counted.
"""

_GRADIENTS_EXAMPLES = """\
examples:
  captioner gradients                                   all cells as they start
  captioner gradients --cell rnn lstm --length 50 --plot cells.svg
  captioner gradients --cell rnn --gain 2 --plot none   recurrent matrix: a rotation times 2
  captioner gradients --weights rnn.safetensors lstm.safetensors --dataset flickr8k --data DIR

The CSV file holds, for each model and each lag T - t, the norm of the gradient of the loss of word T by the
state after word t (for the lstm h and c together), by its hidden part alone, and the former as a share of
that at lag 0, which is what is printed and drawn.
"""

COMMANDS = {
    "evaluate": flags.Command(_add_evaluate, _evaluate, _EVALUATE_EXAMPLES),
    "compare": flags.Command(_add_compare, _compare, _COMPARE_EXAMPLES),
    "retrieval": flags.Command(_add_retrieval, _retrieval, _RETRIEVAL_EXAMPLES),
    "gradients": flags.Command(_add_gradients, _gradients, _GRADIENTS_EXAMPLES),
}
