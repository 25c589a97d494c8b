"""``captioner search``: find the images of a folder that a sentence fits."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.cli.model import add_model_arguments, read_checkpoint
from captioner.cli.options import add_options, one_line, read_options
from captioner.errors import ImageError, OptionError
from captioner.files import check_output
from captioner.search import SearchOptions

if TYPE_CHECKING:
    from captioner.search.search import Answer, Gallery

SUMMARY = "Find the images of a folder that a sentence fits."
EXAMPLES = """\
examples:
  captioner search PHOTOS "a dog on a beach"
  captioner search PHOTOS "a dog on a beach" --top 50 --html found.html
  captioner search PHOTOS "a dog on a beach" --json

prints score, log P, image; the score is log P(text | image) minus its mean over all images

The first search encodes the images; later ones encode those that are new or have changed.

exit code: 0 all images searched, 1 some cannot be read, 2 wrong use, 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("folder", metavar="FOLDER", help="a folder of images")
    parser.add_argument("text", metavar="TEXT", help="a sentence like a caption")
    parser.add_argument("--html", metavar="FILE", help="write a page with the images found")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser, SearchOptions, "search")
    add_model_arguments(parser, batches=False, several=False)


def run(args: argparse.Namespace) -> int:
    """Search.

    Raises:
        CaptionerError: wrong use, absent weights, an unknown word, or a folder without images.
    """
    options = read_options(args, SearchOptions)
    folder = Path(args.folder)
    if not folder.is_dir():
        raise OptionError(f"{folder}: no such folder")
    check_output("html", args.html)

    from captioner.images.find import find_images
    from captioner.scoring import known_words, text_words

    if not text_words(args.text):
        raise OptionError("there is no word in TEXT")
    checkpoint = read_checkpoint(args)
    known_words(args.text, checkpoint.vocabulary)  # before the long part
    paths = list(find_images([folder], recursive=options.recursive))
    if not paths:
        raise ImageError(f"no images in {folder}")

    from captioner.search.page import write_page
    from captioner.search.search import Gallery, search

    gallery = Gallery(checkpoint, paths, cache=options.cache, device=args.device, precision=args.precision)
    for reason in gallery.broken.values():
        print(f"captioner: {one_line(reason)}", file=sys.stderr)
    if not gallery.paths:
        raise ImageError(f"not one image in {folder} can be read")
    answer = search(gallery, args.text)
    if args.html is not None:
        write_page(args.html, args.text, answer, options.top)
    if args.json:
        print(json.dumps(_record(args.text, answer, gallery, options.top, paths), ensure_ascii=False))
    else:
        for match in answer.matches[: options.top]:
            print(f"{match.score:+7.2f} {match.log_prob:8.2f}  {one_line(str(match.path))}")
    return 1 if gallery.broken else 0


def _record(text: str, answer: Answer, gallery: Gallery, top: int, paths: list[Path]) -> dict[str, object]:
    return {
        "text": text,
        "words": answer.words,
        "pictures": len(gallery.paths),
        "mean_log_prob": answer.mean_log_prob,
        "matches": [
            {"image": str(match.path), "score": match.score, "log_prob": match.log_prob}
            for match in answer.matches[:top]
        ],
        "broken": [{"image": str(paths[place]), "error": reason} for place, reason in gallery.broken.items()],
    }
