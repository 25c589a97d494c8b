"""What the commands share: flags made from fields of dataclasses, the flags of the model, and lines for people."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import captioner
from captioner.model.config import PRECISIONS, RUNTIMES
from captioner.options import flag_of, is_needed, typed_fields, with_flags
from captioner.progress import Progress

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")
SUFFIX = ".safetensors"
DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130  # exit codes


@dataclass(frozen=True)
class Command:
    """A sub-command.

    Attributes:
        add_arguments: declares its flags.
        run: does the work and returns the exit code; raises :class:`CaptionerError` for wrong use.
        examples: what ``--help`` shows below the flags.
    """

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    examples: str


def say(text: str) -> None:
    """Print one line on standard error, with the options that it names spelled as flags."""
    Progress().say(one_line(text))


def progress_bar(total: int, what: str | None = None, *, unit: str = "image", **settings: Any) -> tqdm[NoReturn]:
    """Show a progress bar on standard error; ``settings`` are those of ``tqdm``."""
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=unit, **settings)


def one_line(text: str) -> str:
    """Make control characters visible (a file name may hold newlines), so that a text stays one line."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


class _YesOrNo(argparse.BooleanOptionalAction):
    """A pair ``--x`` / ``--no-x``; argparse's own takes each flag that begins with ``--no-`` for the second."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *given: Any) -> None:
        """Store whether the first of the two was given, the last of ``given``."""
        setattr(namespace, self.dest, given[-1] == self.option_strings[0])


def add_options(parser: argparse.ArgumentParser, options: type, title: str, *, skip: Collection[str] = ()) -> None:
    """Add one flag for each field: ``beam_size: int`` becomes ``--beam-size N``.

    A field's metadata give its ``help``, its ``choices`` where only some words are allowed, and the
    ``metavar`` that stands for its value. Booleans become a pair ``--x`` / ``--no-x``; tuples take several
    values.

    Args:
        parser: where the flags go.
        options: a dataclass.
        title: heading of the flags in ``--help``.
        skip: fields without a flag.
    """
    group = parser.add_argument_group(title)
    for item, kind in typed_fields(options):
        if item.name in skip:
            continue
        text = with_flags(item.metadata.get("help", "")).replace("%", "%%")
        text += default_text(item)
        settings: dict[str, Any] = {"dest": item.name, "default": None, "help": text}
        if kind is bool:
            settings["action"] = _YesOrNo
        elif kind is tuple:
            # Both "--dataset a b" and "--dataset a --dataset b" are natural.
            settings |= {"nargs": "+", "action": "extend", "type": str}
            settings["metavar"] = item.metadata.get("metavar", "VALUE")
        else:
            settings |= {"type": kind, "choices": item.metadata.get("choices")}
            if settings["choices"] is None:
                usual = {int: "N", float: "X"}.get(kind, "VALUE")
                settings["metavar"] = item.metadata.get("metavar", usual)
        group.add_argument(flag_of(item.name), **settings)


def default_text(item: Field[Any]) -> str:
    """Give the default of a field, such as `` (default: 3)``; nothing if it has none."""
    if item.default in (MISSING, None, ()):
        return ""
    default = item.default
    if isinstance(default, bool):
        default = "yes" if default else "no"
    return f" (default: {default})"


def read_options(
    args: argparse.Namespace, options: type[T], base: T | None = None, values: Mapping[str, Any] | None = None
) -> T:
    """Build a dataclass from the flags that were given.

    Args:
        args: parsed arguments.
        options: the dataclass that :func:`add_options` made flags from.
        base: where flags that were not given take their values from; the fields' defaults if absent.
        values: values by field, such as those of a file; flags go before them, they before ``base``.

    Raises:
        OptionError: a value is refused by the dataclass, or a field without default was not given.
    """
    given = given_values(args, options, values)
    for item in fields(options):  # type: ignore[arg-type]  # T is a dataclass
        if not item.init or item.name in given:
            continue
        if base is not None:
            given[item.name] = getattr(base, item.name)
        elif is_needed(item):
            raise captioner.OptionError(f"`{item.name}` is missing", item.metadata.get("help", ""))
    return options(**given)


def given_values(args: argparse.Namespace, options: type, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Collect what flags, or else ``values``, give to the fields of a dataclass; see :func:`read_options`."""
    given: dict[str, Any] = {}
    for item in fields(options):
        value = getattr(args, item.name, None)
        if value is None and values is not None:
            value = values.get(item.name)
        if item.init and value is not None:
            given[item.name] = tuple(value) if isinstance(value, list) else value
    return given


def weights_apart(arguments: Sequence[str]) -> list[str]:
    """Write ``--weights a b`` as ``--weights a --weights b``; both are natural.

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
    """Take one value, and refuse a second one."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option} takes one checkpoint here")
        setattr(namespace, self.dest, values)


def add_model_arguments(parser: argparse.ArgumentParser, *, batches: bool = True, several: bool = True) -> None:
    """Add the flags that :func:`open_captioner` reads.

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
    group.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default="auto",
        help="what computes: onnx (ONNX Runtime, on the CPU), torch or auto: onnx on the CPU where the checkpoint has "
        "graphs for it (default: auto)",
    )
    group.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, mps or auto (default: auto)")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of the encoder (default: auto, fp32)",
    )
    if batches:
        group.add_argument("--batch-size", type=int, default=16, metavar="N", help="images at once (default: 16)")


def load_captioner(args: argparse.Namespace) -> tuple[captioner.Captioner, captioner.DecodingOptions]:
    """Load the captioner of the flags, and read how it is to decode: the decoding flags over the checkpoint's own.

    Args:
        args: with the flags of :func:`add_model_arguments`, and of ``DecodingOptions`` as far as there are.

    Raises:
        CaptionerError: the checkpoint, the encoder, the device or an option is refused.
    """
    model = open_captioner(args)
    return model, read_options(args, captioner.DecodingOptions, model.options)


def open_captioner(args: argparse.Namespace, *, device: str | None = None) -> captioner.Captioner:
    """Load the captioner of the flags, for commands that read no decoding flags.

    Args:
        args: with the flags of :func:`add_model_arguments`.
        device: where to run it instead of on the device of the flags.

    Raises:
        CaptionerError: the checkpoint, the encoder or the device is refused.
    """
    model = captioner.Captioner.load(
        args.weights,
        device=device or args.device,
        precision=args.precision,
        runtime=args.runtime,
        encoder=args.encoder,
        image_size=args.image_size,
        resize=args.resize,
    )
    if model.notice and not getattr(args, "quiet", False):
        say(model.notice)
    return model
