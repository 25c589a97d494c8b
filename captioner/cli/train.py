"""``captioner download``, ``data``, ``train``, ``tune``, ``calibrate``, ``classifier``, ``export``: to a checkpoint."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import captioner
from captioner.cli import flags
from captioner.cli.configuration import GROUPS, read_configuration, write_configuration
from captioner.datasets import present, read_each
from captioner.download.catalog import COLLECTIONS, Collection
from captioner.evaluation.options import CalibrationOptions
from captioner.files import check_output
from captioner.interrupt import Interrupted
from captioner.options import flag_of, with_flags
from captioner.training.options import SELECTION_METRICS, ClassifierOptions
from captioner.weights import find_weights, read_header

if TYPE_CHECKING:
    from captioner.download.fetch import Patience

_TUNED = ("beam_size", "length_penalty", "no_repeat_ngram", "no_repeat_thing", "consensus", "tag_threshold")


def _add_download(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("collection", choices=sorted(COLLECTIONS), help="what to fetch")
    parser.add_argument("--to", metavar="DIR", required=True, help="folder to put it in")
    parser.add_argument("--split", default="all", help="COCO: only train or only val (default: all)")
    parser.add_argument("--yes", action="store_true", help="do not ask before fetching")


def download(
    args: argparse.Namespace, collections: Mapping[str, Collection] = COLLECTIONS, patience: Patience | None = None
) -> int:
    """Say what will be fetched, ask, fetch, and say how to use it.

    Args:
        args: the flags.
        collections: what can be fetched, by name.
        patience: how long to wait for connections; the usual time unless given.

    Returns:
        0 when everything is in place, 1 when the answer was no.

    Raises:
        captioner.OptionError: for an impossible split, or when nothing can answer the question.
        DatasetError: when the data cannot be fetched, checked or written.
    """
    from captioner.download.fetch import Patience, readable_size
    from captioner.download.plan import carry_out, describe, make_plan

    collection = collections[args.collection]
    folder = Path(args.to).expanduser()
    plan = make_plan(collection, folder, args.split)
    if plan.archives:
        print(describe(plan), file=sys.stderr)
        if not args.yes and not _confirmed(readable_size(plan.bytes_to_fetch)):
            print("nothing fetched", file=sys.stderr)
            return flags.FAILED
        bars: list[Any] = []

        def show(label: str, done: int, total: int) -> None:
            if not bars or bars[-1].desc != f"{label}: ":
                if bars:
                    bars[-1].close()
                bars.append(flags.progress_bar(total, label, unit="B", unit_scale=True, initial=done))
            bars[-1].update(done - bars[-1].n)

        try:
            carry_out(plan, patience or Patience(), show)
        finally:
            for bar in bars:
                bar.close()
    state = "is now" if plan.archives else "is already"
    use = with_flags(collection.use).format(folder=folder)
    print(f"{collection.name} {state} in {folder}; use it with {use}")
    return flags.DONE


def _confirmed(size: str) -> bool:
    if not sys.stdin.isatty():
        raise captioner.OptionError(
            "a download must be confirmed, and this is not a terminal", "give --yes to fetch without asking"
        )
    print(f"fetch {size}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="where the captions and images are")
    parser.add_argument("--caption-column", metavar="NAME", help="column or JSON key of the captions")


def _data(args: argparse.Namespace) -> int:
    from captioner.datasets.describe import describe, examine

    found = examine(Path(args.folder).expanduser(), args.caption_column)
    print("\n\n".join(map(describe, found)))
    return flags.FAILED if any(finding.error for finding in found) else flags.DONE


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="take options from a TOML file; flags override it")
    parser.add_argument(
        "--print-config", action="store_true", help="print all options as such a file, and train nothing"
    )
    for title, options in GROUPS.items():
        flags.add_options(parser, options, title)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run")


def _train(args: argparse.Namespace) -> int:
    file = {} if args.config is None else read_configuration(args.config)
    try:
        if args.print_config:
            print(write_configuration(_effective(args, file)), end="")
            return flags.DONE
        datasets = flags.read_options(args, captioner.DatasetOptions, values=file)
        options = flags.read_options(args, captioner.TrainingOptions, values=file)
    except captioner.OptionError as error:
        if args.config is None:
            raise
        raise captioner.OptionError(f"{error} (options of {args.config} and of the command line)") from error

    from captioner.training.distributed import joined
    from captioner.training.trainer import train

    try:
        with joined() as world:
            print(train(datasets, options, resume=args.resume, overwrite=args.overwrite, world=world))
    except Interrupted as interruption:
        change = "`resume` instead of `overwrite`" if args.overwrite else "`resume`"
        flags.say(f"interrupted; {interruption}; to go on, give the same command with {change}")
        return flags.INTERRUPTED
    except KeyboardInterrupt:
        flags.say("interrupted; images encoded so far are kept; to go on, give the same command again")
        return flags.INTERRUPTED
    return flags.DONE


def _effective(args: argparse.Namespace, file: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the options that flags or file give, and the encoder.

    Raises:
        captioner.OptionError: a value is refused; what must be given may be absent, though.
    """
    data, training = (flags.given_values(args, options, file) for options in GROUPS.values())
    options = captioner.TrainingOptions(**{"output": "any.safetensors", **training})
    if "dataset" in data:
        vectors = captioner.DatasetOptions(**data).of_vectors
        training["encoder"] = options.with_encoder_for(vectors=vectors).encoder
    return data | training


def _add_tune(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("values to try")
    hints = get_type_hints(captioner.DecodingOptions)
    for item in fields(captioner.DecodingOptions):
        if item.name in _TUNED:
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
        "--select-by", choices=SELECTION_METRICS, default="CIDEr", help="score that decides (default: CIDEr)"
    )
    group.add_argument("--output", metavar="FILE", help="write the checkpoint here (default: replace --weights)")
    group.add_argument("--dry-run", action="store_true", help="print the figures and write nothing")
    flags.add_options(parser, captioner.DatasetOptions, "data set")
    parser.add_argument("--split", default="val", help="split to tune on (default: val)")
    flags.add_model_arguments(parser, several=False)


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"must be yes or no, not {text!r}")
    return text == "yes"


def _tune(args: argparse.Namespace) -> int:
    datasets = flags.read_options(args, captioner.DatasetOptions)
    check_output("output", args.output)

    from captioner.evaluation.adjust import best_of, encode_images, grid, trials_table, try_out

    choices = {name: getattr(args, f"{name}_values") or () for name in _TUNED}
    grid(captioner.DecodingOptions(), choices)  # wrong values are reported before minutes of work
    parts = [(label, present(records, datasets.skip_missing)[0]) for label, records in read_each(datasets, args.split)]
    model = flags.open_captioner(args)
    tries = grid(model.options, choices)
    total = sum(len(records) for _, records in parts)
    with flags.progress_bar(total, "encoding", leave=False) as bar:
        sets = [
            encode_images(
                model,
                label,
                records,
                batch_size=args.batch_size,
                skip_unreadable=datasets.skip_missing,
                on_progress=bar.update,
            )
            for label, records in parts
        ]
    trials = []
    with flags.progress_bar(len(tries), "trying", unit="trial", leave=False) as bar:
        for options in tries:
            trials.append(try_out(model, sets, options, select_by=args.select_by, batch_size=args.batch_size))
            bar.update()
    print(trials_table(trials, args.select_by))
    if args.dry_run:
        return flags.DONE
    weights = find_weights(args.weights)
    best = best_of(trials).options
    entries: dict[str, str | None] = {"decoding": json.dumps(best.to_dict())}
    if best != model.options and read_header(weights).calibration is not None:
        entries["confidence"] = None
        print("its confidence was of captions written otherwise: run captioner calibrate", file=sys.stderr)
    print(f"wrote {_store(weights, args.output, entries)}", file=sys.stderr)
    return flags.DONE


def _store(weights: Path, output: str | None, entries: Mapping[str, str | None]) -> str:
    """Write entries into a checkpoint, or into a copy of it; return the name of the file."""
    from captioner.metadata import write_metadata

    target = weights if output is None else Path(output)
    write_metadata(weights, target, entries)
    return str(target)


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    flags.add_options(parser, CalibrationOptions, "calibration")
    flags.add_options(parser, captioner.DatasetOptions, "data set")
    parser.add_argument("--split", help="split to calibrate on (default: val; all of a COCO file given by name)")
    flags.add_model_arguments(parser, several=False)


def _calibrate(args: argparse.Namespace) -> int:
    options = flags.read_options(args, CalibrationOptions)
    dataset = flags.read_options(args, captioner.DatasetOptions)

    from captioner.evaluation import adjust, captions

    images = captions.find_images(dataset, args.split, None)
    model = flags.open_captioner(args)
    with flags.progress_bar(len(images.records)) as bar:
        found = adjust.calibrate(
            model,
            images.records,
            images.name,
            batch_size=args.batch_size,
            skip_unreadable=dataset.skip_missing,
            on_progress=bar.update,
        )
    entries = {"confidence": json.dumps(asdict(found.calibration))}
    written = _store(find_weights(args.weights), options.output, entries)
    if options.plot is not None:
        adjust.write_reliability(options.plot, found)
        written += f" and {options.plot}"
    print(adjust.calibration_table(found))
    print(f"wrote {written}", file=sys.stderr)
    return flags.DONE


def _add_classifier(parser: argparse.ArgumentParser) -> None:
    flags.add_options(parser, ClassifierOptions, "classifier")
    flags.add_options(parser, captioner.DatasetOptions, "images to fit it on, for an encoder that was trained")


def _classifier(args: argparse.Namespace) -> int:
    options = flags.read_options(args, ClassifierOptions)
    datasets = None if args.dataset is None else flags.read_options(args, captioner.DatasetOptions)

    from captioner.training.classifier import add_classifier

    agreement = add_classifier(datasets, options)
    if agreement is None:
        print("classifier: the pretrained one, as it is")
    else:
        sure = agreement.same_where_sure
        share = "" if sure is None else f", {sure:.1%} where it was sure"
        print(
            f"classifier: fitted on {agreement.images:,} images; on {agreement.held_out:,} others the same "
            f"class as the pretrained one for {agreement.same:.1%}{share}"
        )
    print(options.output)
    return flags.DONE


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the checkpoint")
    parser.add_argument("--output", metavar="FILE", help="write the checkpoint here (default: replace FILE)")
    parser.add_argument(
        "--int8",
        action="store_true",
        help="also quantise it, for --precision int8: faster, at some cost in captions; fp32 stays the default",
    )
    parser.add_argument(
        "--calibrate",
        metavar="DIR",
        help="with --int8: a folder of images like those to be captioned, of which 128 are used",
    )


def _export(args: argparse.Namespace) -> int:
    check_output("output", args.output)
    if args.int8 != (args.calibrate is not None):
        raise captioner.OptionError("`int8` and `calibrate` go together", "give both, or none")
    weights = find_weights(args.file)

    from captioner.runtime.export import renewed_graphs
    from captioner.runtime.int8 import add_int8, calibration_images

    images = calibration_images(args.calibrate, read_header(weights)) if args.int8 else []
    graphs, difference = renewed_graphs(weights)
    written = _store(weights, args.output, {"graphs": graphs.text})
    if graphs.problem:
        flags.say(f"the encoder cannot be exported, so images need torch: {graphs.problem}")
    print(f"on random input, ONNX Runtime and torch differ by at most {difference:.1g}")
    if args.int8:
        add_int8(Path(written), images)
        print(f"quantised by {len(images)} images")
    print(f"wrote {written}", file=sys.stderr)
    return flags.DONE


_DOWNLOAD_EXAMPLES = """\
examples:
  captioner download coco2017 --split val --to data/coco
  captioner download flickr8k --to data/flickr8k --yes
  captioner download karpathy --to data/karpathy
"""

_DATA_EXAMPLES = """\
examples:
  captioner data data/flickr30k
  captioner data MY_PHOTOS --caption-column description

docs/data.md lists the kinds of data sets. Exit code: 0, or 1 if something looks like a data set but cannot be read.
"""

_TRAIN_EXAMPLES = """\
examples:
  captioner train --dataset flickr8k --data DIR --output mine.safetensors
  captioner train --dataset coco --data DIR --encoder resnet50 --output coco.safetensors
  captioner train --dataset flickr8k:DIR table:MY_PHOTOS --output both.safetensors
  captioner train --dataset table --annotations captions.csv --images PHOTOS --output mine.safetensors
  captioner train --dataset codes --codes CODES.npy --captions CAPTIONS.json --output mine.safetensors
  captioner train --dataset flickr8k --data DIR --output mine.safetensors --print-config > mine.toml
  captioner train --config mine.toml --lr 5e-4

Ctrl-C saves; the same command with --resume goes on.
"""

_TUNE_EXAMPLES = """\
examples:
  captioner tune --weights mine.safetensors --dataset flickr8k --data DIR \\
      --beam-size 3 5 8 --length-penalty 0.7 1 --no-repeat-ngram 2 3
  captioner tune --dataset flickr8k:DIR table:OTHER --tag-threshold 0 0.3 --consensus yes no --dry-run

All combinations of the values given are tried; other options stay as the checkpoint has them. Tune on images
that were not trained on. Several data sets have equal weight, however many images they hold.
"""

_CALIBRATE_EXAMPLES = """\
examples:
  captioner calibrate --weights mine.safetensors --dataset flickr8k --data DIR --split dev
  captioner calibrate --weights mine.safetensors --dataset flickr8k --data DIR --split dev \\
      --output calibrated.safetensors --plot reliability.png

Calibrate on images that were not trained on. Captions are written with the checkpoint's own options. From then
on each caption has a confidence: the probability that it is as close to what people say of the image as
docs/confidence.md explains.
"""

_CLASSIFIER_EXAMPLES = """\
examples:
  captioner classifier --output named.safetensors
                                          the shipped weights, whose encoder is the pretrained one
  captioner classifier --weights tuned.safetensors --dataset flickr8k --data DIR --output named.safetensors
                                          an encoder that was trained: the classifier is fitted to it

docs/tags.md explains how captions use it.
"""

_EXPORT_EXAMPLES = """\
examples:
  captioner export mine.safetensors
  captioner export mine.safetensors --output light.safetensors
  captioner export mine.safetensors --int8 --calibrate PHOTOS

What the model computes goes into the file as data, for ONNX Runtime. From then on it captions without torch. A
checkpoint that captioner train writes has it already, where the packages for this are installed.
"""

COMMANDS = {
    "download": flags.Command(_add_download, download, _DOWNLOAD_EXAMPLES),
    "data": flags.Command(_add_data, _data, _DATA_EXAMPLES),
    "train": flags.Command(_add_train, _train, _TRAIN_EXAMPLES),
    "tune": flags.Command(_add_tune, _tune, _TUNE_EXAMPLES),
    "calibrate": flags.Command(_add_calibrate, _calibrate, _CALIBRATE_EXAMPLES),
    "classifier": flags.Command(_add_classifier, _classifier, _CLASSIFIER_EXAMPLES),
    "export": flags.Command(_add_export, _export, _EXPORT_EXAMPLES),
}
