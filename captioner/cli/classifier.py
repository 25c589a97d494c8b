"""``captioner classifier``: let a checkpoint name what its encoder's own classifier sees."""

import argparse

from captioner.cli.options import add_options, read_options
from captioner.datasets.options import DatasetOptions
from captioner.training.options import ClassifierOptions

SUMMARY = "Give a checkpoint its encoder's classifier, so that captions name what it sees."
EXAMPLES = """\
examples:
  captioner classifier --output named.safetensors
                                          the shipped weights, whose encoder is the pretrained one
  captioner classifier --weights tuned.safetensors --dataset flickr8k --data DIR --output named.safetensors
                                          an encoder that was trained: the classifier is fitted to it

docs/tags.md tells how captions make use of it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_options(parser, ClassifierOptions, "classifier")
    add_options(parser, DatasetOptions, "images to fit it on, for an encoder that was trained")


def run(args: argparse.Namespace) -> int:
    """Write the checkpoint.

    Raises:
        CaptionerError: the checkpoint, a classifier or the images are not to be had, or cannot be written.
    """
    options = read_options(args, ClassifierOptions)
    datasets = None if args.dataset is None else read_options(args, DatasetOptions)

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
    return 0
