"""``captioner caption``: pictures in, captions on standard output."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from captioner.cli.options import add_options, one_line, read_options
from captioner.decoding.options import DecodingOptions

if TYPE_CHECKING:
    from captioner.batch.runner import Result

SUMMARY = "Caption pictures and folders of pictures."
EXAMPLES = """\
examples:
  captioner caption photo.jpg
  captioner caption PHOTOS --format jsonl > captions.jsonl
  captioner caption photo.jpg --num-captions 5 --beam-size 5
  captioner caption photo.jpg --temperature 0.8 --top-p 0.9 --seed 7

exit code: 0 all captioned, 1 some failed, 2 wrong use, 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a picture or a folder of pictures")
    parser.add_argument("--format", choices=("text", "jsonl"), default="text", help="(default: text)")
    parser.add_argument(
        "--recursive",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="look into sub-folders (default: yes)",
    )
    parser.add_argument(
        "--log-prob", action="store_true", help="add log P(caption | picture) to the text format"
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="refuse pictures with more pixels than this (default: 100 million)",
    )
    add_options(parser, DecodingOptions, "decoding (defaults may be stored in the checkpoint)")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags that say which model runs, and where."""
    group = parser.add_argument_group("model")
    group.add_argument("--weights", metavar="FILE", help="checkpoint (default: the shipped one)")
    group.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda, mps or auto (default: auto)"
    )
    group.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of the encoder (default: auto, fp32)",
    )
    group.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="pictures at once (default: 16)"
    )


def run(args: argparse.Namespace) -> int:
    """Caption what the arguments name.

    Raises:
        CaptionerError: wrong use, absent weights, or a folder without pictures.
    """
    from tqdm import tqdm

    from captioner.batch.runner import caption_paths
    from captioner.captioner import Captioner

    captioner = Captioner.load(args.weights, device=args.device, precision=args.precision)
    options = read_options(args, DecodingOptions, captioner.options)
    results = caption_paths(
        captioner,
        args.paths,
        options,
        recursive=args.recursive,
        batch_size=args.batch_size,
        max_pixels=args.max_pixels,
    )
    failed = 0
    # Captions on a terminal are progress enough, and a bar would run into them.
    quiet = sys.stdout.isatty() or not sys.stderr.isatty()
    with tqdm(results, unit=" pictures", file=sys.stderr, leave=False, disable=quiet) as progress:
        for result in progress:
            for line in _lines(result, args, several=options.num_captions > 1):
                print(line, flush=True)
            if result.error is not None:
                failed += 1
                progress.write(f"captioner: {one_line(result.error)}", file=sys.stderr)
    return 1 if failed else 0


def _lines(result: Result, args: argparse.Namespace, *, several: bool) -> Iterator[str]:
    if args.format == "jsonl":
        yield json.dumps(_record(result, several=several), ensure_ascii=False)
        return
    for caption in result.captions:
        line = f"{one_line(str(result.image))}\t{one_line(caption.text)}"
        yield f"{line}\t{caption.log_prob:.2f}" if args.log_prob else line


def _record(result: Result, *, several: bool) -> dict[str, object]:
    image = str(result.image)
    if result.error is not None:
        return {"image": image, "error": result.error}
    best = result.captions[0]
    record: dict[str, object] = {"image": image, "caption": best.text, "log_prob": best.log_prob}
    if several:
        record["captions"] = [{"caption": c.text, "log_prob": c.log_prob} for c in result.captions]
    return record
