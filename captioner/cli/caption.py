"""``captioner caption``: images in, captions out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from captioner.bulk.options import FolderOptions
from captioner.cli.model import add_model_arguments, load_captioner, open_captioner
from captioner.cli.options import add_options, read_options
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError, OptionError
from captioner.weights import find_weights, peek

if TYPE_CHECKING:
    from captioner.bulk.progress import Progress, Summary
    from captioner.bulk.run import Model
    from captioner.captioner import Captioner

SUMMARY = "Caption images and folders of images."
EXAMPLES = """\
examples:
  captioner caption photo.jpg
  captioner caption PHOTOS --output captions.jsonl          goes on where it was interrupted
  captioner caption PHOTOS --format sidecar --prepend "photo of"
  captioner caption PHOTOS --output sheet.html              thumbnails with captions, for the browser
  captioner caption PHOTOS --embed --output CAPTIONED       captions inside copies of the images
  captioner caption PHOTOS --shard 2/8 --output part-2.csv  see captioner merge
  captioner caption --input-tar 'photos-{000..999}.tar' --output captions.jsonl
  captioner caption PHOTOS --engine ray --ray-address auto --output CAPTIONS
  captioner caption photo.jpg --num-captions 5 --beam-size 5
  captioner caption photo.jpg --temperature 0.8 --top-p 0.9 --seed 7
  captioner caption photo.jpg --weights a.safetensors b.safetensors
  captioner caption codes.npy --weights mine.safetensors    vectors that an encoder made before

exit code: 0 all captioned, 1 some failed, 2 wrong use, 130 interrupted
"""

_DONE, _FAILED, _INTERRUPTED = 0, 1, 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="an image, a folder of images, or a .npy file of vectors"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but what has failed")
    add_options(parser, FolderOptions, "images and captions", skip=("batch_size",))
    add_model_arguments(parser)
    add_options(parser, DecodingOptions, "decoding (defaults may be stored in the checkpoint)")


def run(args: argparse.Namespace) -> int:
    """Caption what the arguments name.

    Raises:
        CaptionerError: wrong use, absent weights, or a folder without images.
    """
    from captioner.bulk.progress import Progress

    options = read_options(args, FolderOptions)
    if not args.paths and options.from_file is None and not options.input_tar:
        raise OptionError("name an image or a folder, or a list of them with --from-file")
    with Progress(_shown(args, options), summary=not (args.quiet or options.dry_run)) as progress:
        # Where the suffix is not there, torch need not be imported to tell.
        if any(path.lower().endswith(".npy") for path in args.paths):
            summary = _caption_vectors(args, options, progress)
        else:
            summary = _caption_images(args.paths, options, _model(args), progress)
        progress.summarise(summary)
        return _exit_code(summary, options, progress, quiet=args.quiet)


def _caption_images(paths: list[str], options: FolderOptions, model: Model, progress: Progress) -> Summary:
    if options.engine == "ray":
        from captioner.cluster.engine import caption_on_cluster

        return caption_on_cluster(paths, options, model, progress)
    if options.embed:
        from captioner.embed.targets import caption_inside

        return caption_inside(paths, options, model, progress)

    from captioner.bulk.run import caption_file, caption_folder

    if options.prints_lines and not _names_more(options) and len(paths) == 1 and Path(paths[0]).is_file():
        return caption_file(paths[0], options, model, progress)
    return caption_folder(paths, options, model, progress)


def _names_more(options: FolderOptions) -> bool:
    """Whether it takes a list to know what is to be captioned."""
    return bool(options.from_file or options.input_tar or options.shard or options.dry_run)


def _shown(args: argparse.Namespace, options: FolderOptions) -> Literal["bar", "lines", "nothing"]:
    # Captions on a terminal are progress enough, and a bar would run into them.
    if args.quiet or options.dry_run or (options.prints and sys.stdout.isatty()):
        return "nothing"
    return "bar" if sys.stderr.isatty() else "lines"


def _exit_code(summary: Summary, options: FolderOptions, progress: Progress, *, quiet: bool) -> int:
    if options.dry_run:
        if not quiet:
            progress.say(f"{summary.remaining:,} to caption, {summary.skipped:,} to skip")
        return _DONE
    if not summary.interrupted:
        return _FAILED if summary.failed else _DONE
    how = "to go on, give the same command"
    if options.prints:
        how = "what was printed is whole; with --output FILE the same command would go on"
    elif options.overwrite and options.output is not None:
        how += " without --overwrite"
    progress.say(f"interrupted; {how}")
    return _INTERRUPTED


def _model(args: argparse.Namespace) -> Model:
    """The model of the flags, not yet loaded as far as that can be avoided."""
    from captioner.bulk.run import Model

    paths = [find_weights(name) for name in args.weights or [None]]
    try:
        stored = DecodingOptions.from_dict(json.loads(peek(paths[0]).metadata["decoding"]))
        digest = "+".join(peek(path).digest for path in paths)
    except (CaptionerError, LookupError, ValueError, OSError):
        captioner, decoding = load_captioner(args)  # which says what is wrong with the file
        digest = captioner.digest
    else:
        decoding = read_options(args, DecodingOptions, stored)
    settings = {
        "weights": digest,
        "encoder": args.encoder,
        "image_size": args.image_size,
        "resize": args.resize,
        "precision": "fp32" if args.precision == "auto" else args.precision,
        "decoding": decoding.to_dict(),
    }

    def load(device: str | None = None) -> Captioner:
        captioner = open_captioner(args, device=device)
        captioner.check_sees_images()
        return captioner

    return Model(settings, decoding, load, lambda: load("cpu").preprocessing, args.device)


def _caption_vectors(args: argparse.Namespace, options: FolderOptions, progress: Progress) -> Summary:
    from captioner.bulk.pipeline import caption_vectors, named_vectors
    from captioner.bulk.run import print_results

    vectors = named_vectors(args.paths)
    if not options.prints_lines or _names_more(options):
        raise OptionError(
            "captions of vectors are printed as text, jsonl or csv", "leave out options for files of images"
        )
    captioner, decoding = load_captioner(args)
    results = caption_vectors(captioner, vectors, decoding, batch_size=options.batch_size)
    return print_results(results, options, progress, several=decoding.num_captions > 1)
