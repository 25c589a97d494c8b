"""``captioner score``: how probable the model finds a text, given an image."""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING

from captioner.cli.model import add_model_arguments, open_captioner, read_lines
from captioner.cli.options import one_line
from captioner.errors import OptionError

if TYPE_CHECKING:
    from captioner.scoring import Score
    from captioner.search.search import Unscored

SUMMARY = "Say how probable a text is, given an image: in all and word by word."
EXAMPLES = """\
examples:
  captioner score photo.jpg "a dog runs on the beach"
  captioner score photo.jpg "a dog runs on the beach" --runners-up 3
  captioner score photo.jpg --file sentences.txt --json

A text with words that the model does not know is not scored; the words are named.

exit code: 0 all scored, 1 some lines of the file were not, 2 wrong use, 130 interrupted
"""

_LONGEST_SHOWN = 200  # letters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("image", metavar="IMAGE", help="an image")
    parser.add_argument("text", metavar="TEXT", nargs="?", help="the text")
    parser.add_argument("--file", metavar="LINES", help="score every line of this file instead")
    parser.add_argument(
        "--runners-up", type=int, default=0, metavar="K", help="show the K most probable words at each place"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a text, one a line")
    add_model_arguments(parser, batches=False)


def run(args: argparse.Namespace) -> int:
    """Score what the arguments name.

    Raises:
        CaptionerError: wrong use, absent weights, an image that cannot be read, or an unknown word in TEXT.
    """
    if (args.text is None) == (args.file is None):
        raise OptionError("give a TEXT or --file LINES" + ("" if args.text is None else ", not both"))
    texts = [args.text] if args.file is None else read_lines(args.file)

    from captioner.scoring import Score, known_words, text_words
    from captioner.search.search import score_each

    if args.file is None and not text_words(args.text):
        raise OptionError("there is no word in TEXT")
    captioner = open_captioner(args)
    if args.file is None:
        known_words(args.text, captioner.vocabulary)
    regions = captioner.encode([captioner.preprocess(args.image)])
    failed = 0
    for place, judged in enumerate(score_each(captioner, regions, texts, runners_up=args.runners_up)):
        if not isinstance(judged, Score):
            failed += 1
            print(f"captioner: {_shown(judged.text)}: {one_line(judged.reason)}", file=sys.stderr)
        if args.json:
            print(json.dumps(score_record(judged), ensure_ascii=False))
        elif isinstance(judged, Score):
            print(("\n" if place else "") + "\n".join(_table(judged)))
    return 1 if failed else 0


def score_record(judged: Score | Unscored) -> dict[str, object]:
    """What is known of a text, as plain values for JSON; logarithms are natural, surprisals in bits."""
    from captioner.scoring import Score

    if not isinstance(judged, Score):
        return {"text": judged.text, "error": judged.reason, "unknown_words": judged.unknown}
    record: dict[str, object] = {
        "text": judged.text,
        "log_prob": judged.log_prob,
        "mean_log_prob": judged.mean_log_prob,
        "perplexity": judged.perplexity if math.isfinite(judged.perplexity) else None,
        "words": judged.words,
        "word_log_probs": judged.word_log_probs,
        "end_log_prob": judged.end_log_prob,
        "surprisals": judged.surprisals,
    }
    if judged.runners_up:
        record["runners_up"] = [
            [{"word": word, "probability": probability} for word, probability in at_place]
            for at_place in judged.runners_up
        ]
    return record


def _table(score: Score) -> list[str]:
    words = [*map(one_line, score.words), "<end>"]
    log_probs = [*score.word_log_probs, score.end_log_prob]
    width = max(map(len, (*words, "word")))
    lines = [
        f"text        {_shown(score.text)}",
        f"log P       {score.log_prob:.2f} ({score.mean_log_prob:.2f} a word, the end included)",
        f"perplexity  {score.perplexity:.2f}",
        "",
        f"{'word':<{width}}  {'P':>8}  {'log P':>7}  {'bits':>6}" + "  most probable" * bool(score.runners_up),
    ]
    for place, (word, log_prob, bits) in enumerate(zip(words, log_probs, score.surprisals, strict=True)):
        line = f"{word:<{width}}  {_percent(math.exp(log_prob)):>8}  {log_prob:>7.2f}  {bits:>6.2f}"
        if score.runners_up:
            best = score.runners_up[place]
            line += "  " + ", ".join(f"{one_line(other)} {_percent(chance)}" for other, chance in best)
        lines.append(line)
    return lines


def _shown(text: str) -> str:
    """The text in one line, which a text of thousands of words would not be for a reader."""
    return one_line(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "...")


def _percent(probability: float) -> str:
    return f"{100 * probability:.2g} %" if probability < 0.0995 else f"{100 * probability:.0f} %"
