"""``captioner rank``: which of many texts suits an image best."""

import argparse
import json

from captioner.cli.model import add_model_arguments, open_captioner, read_lines
from captioner.cli.options import one_line
from captioner.cli.score import score_record

SUMMARY = "Order texts, one a line on standard input, by their probability given an image."
EXAMPLES = """\
examples:
  captioner rank photo.jpg < candidates.txt
  printf 'a dog on a beach\\na cat on a sofa\\n' | captioner rank photo.jpg --per-word

prints log P, log P a word, text; the best text first, those with words that the model does not know last

exit code: 0 all ranked, 1 some have unknown words, 2 wrong use, 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("image", metavar="IMAGE", help="an image")
    parser.add_argument(
        "--per-word",
        action="store_true",
        help="order by log P a word (the end included), which does not favour short texts",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a text, one a line")
    add_model_arguments(parser, batches=False)


def run(args: argparse.Namespace) -> int:
    """Rank the lines of standard input.

    Raises:
        CaptionerError: wrong use, absent weights, or an image that cannot be read.
    """
    texts = read_lines(None)

    from captioner.scoring import Score
    from captioner.search.search import rank

    captioner = open_captioner(args)
    regions = captioner.encode([captioner.preprocess(args.image)])
    ranked = rank(captioner, regions, texts, per_word=args.per_word)
    for judged in ranked:
        if args.json:
            print(json.dumps(score_record(judged), ensure_ascii=False))
        elif isinstance(judged, Score):
            print(f"{judged.log_prob:8.2f} {judged.mean_log_prob:7.2f}  {one_line(judged.text)}")
        else:
            print(f"{'-':>8} {'-':>7}  {one_line(judged.text)}  [{one_line(judged.reason)}]")
    return 0 if all(isinstance(judged, Score) for judged in ranked) else 1
