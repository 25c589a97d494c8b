"""Flags that say which model runs, and the captioner that they describe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from captioner.cli.options import read_options
from captioner.decoding.options import DecodingOptions
from captioner.errors import OptionError

if TYPE_CHECKING:
    from captioner.captioner import Captioner
    from captioner.checkpoint import Checkpoint


SUFFIX = ".safetensors"


def weights_apart(arguments: Sequence[str]) -> list[str]:
    """``--weights a b`` as ``--weights a --weights b``, both of which are natural.

    Only what ends like a checkpoint joins in, so that ``--weights a photo.jpg`` names an image, as ever.
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


def add_model_arguments(parser: argparse.ArgumentParser, *, batches: bool = True, several: bool = True) -> None:
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
    group.add_argument("--image-size", type=int, metavar="N", help="side of the image that --encoder sees, in pixels")
    group.add_argument(
        "--resize",
        choices=("squash", "crop"),
        help="how --encoder sees an image: the whole, or its centre in true proportion (default: squash)",
    )
    group.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, mps or auto (default: auto)")
    group.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of the encoder (default: auto, fp32)",
    )
    if batches:
        group.add_argument("--batch-size", type=int, default=16, metavar="N", help="images at once (default: 16)")


def load_captioner(args: argparse.Namespace) -> tuple[Captioner, DecodingOptions]:
    """The captioner of the flags, and how it is to decode: the decoding flags over the checkpoint's own.

    Args:
        args: with the flags of :func:`add_model_arguments`, and of ``DecodingOptions`` as far as there are.

    Raises:
        CaptionerError: the checkpoint, the encoder, the device or an option is not available.
    """
    captioner = open_captioner(args)
    return captioner, read_options(args, DecodingOptions, captioner.options)


def open_captioner(args: argparse.Namespace, *, device: str | None = None) -> Captioner:
    """The captioner of the flags, without decoding flags.

    Args:
        args: with the flags of :func:`add_model_arguments`.
        device: another one than that of the flags.

    Raises:
        CaptionerError: the checkpoint, the encoder or the device is not available.
    """
    from captioner.captioner import Captioner

    return Captioner.load(
        args.weights,
        device=device or args.device,
        precision=args.precision,
        encoder=args.encoder,
        image_size=args.image_size,
        resize=args.resize,
    )


def read_checkpoint(args: argparse.Namespace) -> Checkpoint:
    """The checkpoint of the flags, for commands that need no captioner.

    Raises:
        CaptionerError: the checkpoint or the encoder is not to be had.
    """
    from captioner.captioner import load_model

    return load_model(args.weights, encoder=args.encoder, image_size=args.image_size, resize=args.resize)


_MOST_BYTES = 16 << 20
_MOST_LINES = 100_000


def read_lines(file: str | None) -> list[str]:
    """The lines with words in them; says on standard error how many others were left out.

    Args:
        file: a path; None for standard input.

    Raises:
        OptionError: there is nothing to read, it is not UTF-8, it is too long, or no line holds a word.
    """
    name = "standard input" if file is None else f"--file {file}"
    try:
        data = _from_standard_input() if file is None else _from_file(file)
    except (OSError, ValueError) as error:  # ValueError: a null character in a path, a closed stream
        raise OptionError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(data) > _MOST_BYTES:
        raise OptionError(f"{name}: is longer than {_MOST_BYTES >> 20} MiB")
    if data.count(b"\n") > _MOST_LINES:
        raise OptionError(f"{name}: has more than {_MOST_LINES:,} lines")
    lines = [
        _decoded(line, f"{name}: line {number}")
        for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
    ]
    if not lines[-1]:  # what follows the last line's end
        lines.pop()
    kept = [line for number, line in enumerate(lines, start=1) if _has_words(line, f"{name}: line {number}")]
    if not kept:
        raise OptionError(f"{name}: holds no text", "give one text a line")
    if empty := len(lines) - len(kept):
        print(f"captioner: {name}: left out {empty:,} line{'s' * (empty > 1)} without words", file=sys.stderr)
    return kept


def _decoded(line: bytes, name: str) -> str:
    try:
        return line.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        raise OptionError(f"{name} is not UTF-8 text") from error


def _has_words(line: str, name: str) -> bool:
    from captioner.scoring import text_words

    try:
        return bool(text_words(line))
    except OptionError as error:
        raise OptionError(f"{name}: {error}") from error


def _from_standard_input() -> bytes:
    if sys.stdin is None:
        raise OptionError("standard input is closed", "give one text a line")
    stream: BinaryIO = sys.stdin.buffer
    if sys.stdin.isatty():
        print("captioner: type one text a line; Ctrl-D ends", file=sys.stderr)
    return _all_of(stream)


def _from_file(file: str) -> bytes:
    with Path(file).open("rb") as stream:
        return _all_of(stream)


def _all_of(stream: BinaryIO) -> bytes:
    return stream.read(_MOST_BYTES + 1)
