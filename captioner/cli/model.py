"""Flags that say which model runs, and the captioner that they describe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from captioner.cli.options import read_options
from captioner.decoding.options import DecodingOptions

if TYPE_CHECKING:
    from captioner.captioner import Captioner
    from captioner.checkpoint import Checkpoint


SUFFIX = ".safetensors"


def weights_apart(arguments: Sequence[str]) -> list[str]:
    """``--weights a b`` as ``--weights a --weights b``, both of which are natural.

    Only what ends like a checkpoint joins in, so that ``--weights a photo.jpg`` names a photo, as ever.
    """
    apart: list[str] = []
    for argument in arguments:
        inside = len(apart) > 1 and apart[-2] == "--weights"
        if inside and argument.endswith(SUFFIX) and not argument.startswith("-"):
            apart.append("--weights")
        apart.append(argument)
    return apart


class _Once(argparse.Action):
    """Takes one value, and does not let a second one replace it unseen."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option} takes one checkpoint here")
        setattr(namespace, self.dest, values)


def add_model_arguments(
    parser: argparse.ArgumentParser, *, batches: bool = True, several: bool = True
) -> None:
    """Declares the flags that :func:`load_captioner` or :func:`read_checkpoint` reads.

    Args:
        parser: where the flags go.
        batches: whether there is ``--batch-size``.
        several: whether several checkpoints can work together.
    """
    group = parser.add_argument_group("model")
    text = "checkpoint (default: the shipped one)"
    if several:
        text += f"; further {SUFFIX} files behind it join in: their word probabilities are averaged"
        group.add_argument("--weights", action="append", metavar="FILE", help=text)
    else:
        group.add_argument("--weights", action=_Once, metavar="FILE", help=text)
    group.add_argument(
        "--encoder",
        metavar="NAME",
        help="what made the vectors that the checkpoint was trained on, if it carries no encoder itself",
    )
    group.add_argument(
        "--image-size", type=int, metavar="N", help="side of the picture that --encoder sees, in pixels"
    )
    group.add_argument(
        "--resize",
        choices=("squash", "crop"),
        help="how --encoder sees a picture: the whole, or its centre in true proportion (default: squash)",
    )
    group.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda, mps or auto (default: auto)"
    )
    group.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of the encoder (default: auto, fp32)",
    )
    if batches:
        group.add_argument(
            "--batch-size", type=int, default=16, metavar="N", help="pictures at once (default: 16)"
        )


def load_captioner(
    args: argparse.Namespace, *, device: str | None = None
) -> tuple[Captioner, DecodingOptions]:
    """The captioner of the flags, and how it is to decode: the decoding flags over the checkpoint's own.

    Args:
        args: with the flags of :func:`add_model_arguments`, and of ``DecodingOptions`` as far as there are.
        device: another one than that of the flags.

    Raises:
        CaptionerError: the checkpoint, the encoder, the device or an option is not to be had.
    """
    from captioner.captioner import Captioner

    captioner = Captioner.load(
        args.weights,
        device=device or args.device,
        precision=args.precision,
        encoder=args.encoder,
        image_size=args.image_size,
        resize=args.resize,
    )
    return captioner, read_options(args, DecodingOptions, captioner.options)


def read_checkpoint(args: argparse.Namespace) -> Checkpoint:
    """The checkpoint of the flags, for commands that need no captioner.

    Raises:
        CaptionerError: the checkpoint or the encoder is not to be had.
    """
    from captioner.captioner import load_model

    return load_model(args.weights, encoder=args.encoder, image_size=args.image_size, resize=args.resize)
