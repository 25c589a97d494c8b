"""``captioner calibrate``: teach a checkpoint how sure its captions are."""

import argparse
import json
import sys
from pathlib import Path

from captioner.cli.model import add_model_arguments, open_captioner
from captioner.cli.options import add_options, read_options
from captioner.datasets.options import DatasetOptions
from captioner.evaluation.options import CalibrationOptions

SUMMARY = "Learn on images that were not trained on how sure captions are, and note it in the checkpoint."
EXAMPLES = """\
examples:
  captioner calibrate --weights mine.safetensors --dataset flickr8k --data DIR --split dev
  captioner calibrate --weights mine.safetensors --dataset flickr8k --data DIR --split dev \\
      --output calibrated.safetensors --plot reliability.png

Captions are written as the checkpoint says by default. From then on each has a confidence: the probability
that it is as close to what people say of the image as docs/confidence.md tells.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_options(parser, CalibrationOptions, "calibration")
    add_options(parser, DatasetOptions, "data set")
    parser.add_argument("--split", help="split to calibrate on (default: val; all of a COCO file given by name)")
    add_model_arguments(parser, several=False)


def run(args: argparse.Namespace) -> int:
    """Calibrate, write and print.

    Raises:
        CaptionerError: an option, the checkpoint, the data or an output file is refused.
    """
    options = read_options(args, CalibrationOptions)
    dataset = read_options(args, DatasetOptions)

    from tqdm import tqdm

    from captioner.evaluation.calibrate import calibrate, calibration_table, write_reliability
    from captioner.evaluation.captions import find_images
    from captioner.saving import write_metadata
    from captioner.weights import find_weights

    images = find_images(dataset, args.split, None)
    captioner = open_captioner(args)
    with tqdm(total=len(images.records), unit="image", file=sys.stderr) as bar:
        found = calibrate(
            captioner,
            images.records,
            images.name,
            batch_size=args.batch_size,
            skip_unreadable=dataset.skip_missing,
            on_progress=bar.update,
        )
    weights = find_weights(args.weights)
    output = weights if options.output is None else Path(options.output)
    write_metadata(weights, output, {"confidence": json.dumps(found.calibration.to_dict())})
    written = str(output)
    if options.plot is not None:
        write_reliability(options.plot, found)
        written += f" and {options.plot}"
    print(calibration_table(found))
    print(f"wrote {written}", file=sys.stderr)
    return 0
