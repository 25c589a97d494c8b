"""``captioner score``, ``rank``, ``explain``, ``search`` and ``info``: what a model makes of images, and what it is."""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

import captioner
from captioner.cli import flags
from captioner.cli.configuration import checked_values, write_configuration
from captioner.files import check_output, write_atomically
from captioner.images.draw import draw_explanation
from captioner.search.options import SearchOptions
from captioner.vocabulary import known_words, text_words
from captioner.weights import find_weights, read_header

if TYPE_CHECKING:
    from captioner.search.search import Unscored

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_SCORE_KEYS = (
    *("text", "log_prob", "mean_log_prob", "perplexity"),
    *("words", "word_log_probs", "end_log_prob", "surprisals"),
)
_LONGEST_SHOWN = 200  # letters
_MOST_BYTES = 16 << 20
_MOST_LINES = 100_000


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="an image")
    parser.add_argument("text", metavar="TEXT", nargs="?", help="the text")
    parser.add_argument("--file", metavar="LINES", help="score every line of this file instead")
    parser.add_argument(
        "--runners-up", type=int, default=0, metavar="K", help="show the K most probable words at each place"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a text, one a line")
    flags.add_model_arguments(parser, batches=False)


def _score(args: argparse.Namespace) -> int:
    if (args.text is None) == (args.file is None):
        raise captioner.OptionError("give a TEXT or --file LINES" + ("" if args.text is None else ", not both"))
    texts = [args.text] if args.file is None else _read_lines(args.file)

    from captioner.search.search import score_each

    if args.file is None and not text_words(args.text):
        raise captioner.OptionError("there is no word in TEXT")
    model = flags.open_captioner(args)
    if args.file is None:
        known_words(args.text, model.vocabulary)
    regions = model.encode([model.preprocess(args.image)])
    code = flags.DONE
    for place, judged in enumerate(score_each(model, regions, texts, runners_up=args.runners_up)):
        if not isinstance(judged, captioner.Score):
            code = flags.FAILED
            flags.say(f"{_shortened(judged.text)}: {judged.reason}")
        if args.json:
            print(json.dumps(_score_record(judged), ensure_ascii=False))
        elif isinstance(judged, captioner.Score):
            print(("\n" if place else "") + "\n".join(_score_table(judged)))
    return code


def _score_record(judged: captioner.Score | Unscored) -> dict[str, object]:
    """What is known of a text, as plain values for JSON; logarithms are natural, surprisals in bits."""
    if not isinstance(judged, captioner.Score):
        return {"text": judged.text, "error": judged.reason, "unknown_words": judged.unknown}
    record = {name: getattr(judged, name) for name in _SCORE_KEYS}
    if not math.isfinite(judged.perplexity):
        record["perplexity"] = None
    if judged.runners_up:
        record["runners_up"] = [
            [{"word": word, "probability": probability} for word, probability in at_place]
            for at_place in judged.runners_up
        ]
    return record


def _score_table(score: captioner.Score) -> list[str]:
    words = [*map(flags.one_line, score.words), "<end>"]
    log_probs = [*score.word_log_probs, score.end_log_prob]
    width = max(map(len, (*words, "word")))
    lines = [
        f"text        {flags.one_line(_shortened(score.text))}",
        f"log P       {score.log_prob:.2f} ({score.mean_log_prob:.2f} a word, the end included)",
        f"perplexity  {score.perplexity:.2f}",
        "",
        f"{'word':<{width}}  {'P':>8}  {'log P':>7}  {'bits':>6}" + "  most probable" * bool(score.runners_up),
    ]
    for place, (word, log_prob, bits) in enumerate(zip(words, log_probs, score.surprisals, strict=True)):
        line = f"{word:<{width}}  {_percent(math.exp(log_prob)):>8}  {log_prob:>7.2f}  {bits:>6.2f}"
        if score.runners_up:
            best = score.runners_up[place]
            line += "  " + ", ".join(f"{flags.one_line(other)} {_percent(chance)}" for other, chance in best)
        lines.append(line)
    return lines


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."


def _percent(probability: float) -> str:
    return f"{100 * probability:.2g} %" if probability < 0.0995 else f"{100 * probability:.0f} %"


def _add_rank(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="an image")
    parser.add_argument(
        "--per-word",
        action="store_true",
        help="order by log P a word (the end included), which does not favour short texts",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a text, one a line")
    flags.add_model_arguments(parser, batches=False)


def _rank(args: argparse.Namespace) -> int:
    texts = _read_lines(None)

    from captioner.search.search import rank

    model = flags.open_captioner(args)
    regions = model.encode([model.preprocess(args.image)])
    ranked = rank(model, regions, texts, per_word=args.per_word)
    for judged in ranked:
        if args.json:
            print(json.dumps(_score_record(judged), ensure_ascii=False))
        elif isinstance(judged, captioner.Score):
            print(f"{judged.log_prob:8.2f} {judged.mean_log_prob:7.2f}  {flags.one_line(judged.text)}")
        else:
            print(f"{'-':>8} {'-':>7}  {flags.one_line(judged.text)}  [{flags.one_line(judged.reason)}]")
    return flags.DONE if all(isinstance(judged, captioner.Score) for judged in ranked) else flags.FAILED


def _read_lines(file: str | None) -> list[str]:
    """Read the lines with words in them; report on standard error how many others were left out.

    Args:
        file: a path; None for standard input.

    Raises:
        captioner.OptionError: there is nothing to read, it is not UTF-8, it is too long, or no line holds a word.
    """
    name = "standard input" if file is None else f"--file {file}"
    try:
        data = _read_bytes(file)
    except (OSError, ValueError) as error:  # ValueError: a null character in a path, a closed stream
        raise captioner.OptionError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(data) > _MOST_BYTES:
        raise captioner.OptionError(f"{name}: is longer than {_MOST_BYTES >> 20} MiB")
    if data.count(b"\n") > _MOST_LINES:
        raise captioner.OptionError(f"{name}: has more than {_MOST_LINES:,} lines")
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1]:  # what follows the last line's end
        lines.pop()
    texts = [_text(line, f"{name}: line {number}") for number, line in enumerate(lines, start=1)]
    kept = [text for text in texts if text]
    if not kept:
        raise captioner.OptionError(f"{name}: holds no text", "give one text a line")
    if empty := len(lines) - len(kept):
        flags.say(f"{name}: left out {empty:,} line{'s' * (empty > 1)} without words")
    return kept


def _text(line: bytes, where: str) -> str:
    """A line as text; empty if it holds no word."""
    try:
        text = line.decode().removesuffix("\r")
        return text if text_words(text) else ""
    except UnicodeDecodeError as error:
        raise captioner.OptionError(f"{where} is not UTF-8 text") from error
    except captioner.OptionError as error:
        raise captioner.OptionError(f"{where}: {error}") from error


def _read_bytes(file: str | None) -> bytes:
    if file is not None:
        with Path(file).open("rb") as stream:
            return stream.read(_MOST_BYTES + 1)
    if sys.stdin is None:
        raise captioner.OptionError("standard input is closed", "give one text a line")
    if sys.stdin.isatty():
        flags.say("type one text a line; Ctrl-D ends")
    return sys.stdin.buffer.read(_MOST_BYTES + 1)


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="an image")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help=f"image to write: {', '.join(_ENDINGS)}")
    flags.add_model_arguments(parser, batches=False, several=False)
    # One caption is explained.
    flags.add_options(
        parser, captioner.DecodingOptions, "decoding (defaults may be stored in the checkpoint)", skip=("num_captions",)
    )


def _explain(args: argparse.Namespace) -> int:
    output = Path(args.output).expanduser()
    check_output("output", str(output))
    if output.suffix.lower() not in _ENDINGS:
        raise captioner.OptionError(f"`output` {args.output}: must end in {', '.join(_ENDINGS)}")
    if output.exists() and Path(args.image).exists() and output.samefile(args.image):
        raise captioner.OptionError(f"`output` {args.output}: is the image itself", "name another file")

    model, options = flags.load_captioner(args)
    pixels = model.preprocess(args.image)
    ((caption, *_),) = model.caption([pixels], options)
    # A model that sees the centre only would light up the wrong places of the whole image.
    sees = model.preprocessing
    centre = isinstance(sees, captioner.Preprocessing) and sees.resize == "crop"
    image = Image.fromarray(pixels) if centre else captioner.open_image(args.image)
    data = io.BytesIO()
    sheet = draw_explanation(image, caption)
    sheet.save(data, Image.registered_extensions()[output.suffix.lower()], quality=90)
    write_atomically(output, data.getvalue())
    print(flags.one_line(caption.text))
    return flags.DONE


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="a folder of images")
    parser.add_argument("text", metavar="TEXT", help="a sentence like a caption")
    parser.add_argument("--html", metavar="FILE", help="write a page with the images found")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    flags.add_options(parser, SearchOptions, "search")
    flags.add_model_arguments(parser, batches=False, several=False)


def _search(args: argparse.Namespace) -> int:
    options = flags.read_options(args, SearchOptions)
    folder = Path(args.folder)
    if not folder.is_dir():
        raise captioner.OptionError(f"{folder}: no such folder")
    check_output("html", args.html)

    from captioner.search.search import Gallery, search, write_page

    if not text_words(args.text):
        raise captioner.OptionError("there is no word in TEXT")
    model = flags.open_captioner(args)
    known_words(args.text, model.vocabulary)  # before the long part
    paths = list(captioner.find_images([folder], recursive=options.recursive))
    if not paths:
        raise captioner.ImageError(f"no images in {folder}")
    gallery = Gallery(model, paths, cache=options.cache)
    for reason in gallery.broken.values():
        flags.say(reason)
    if not gallery.paths:
        raise captioner.ImageError(f"not one image in {folder} can be read")
    answer = search(gallery, args.text)
    if args.html is not None:
        write_page(args.html, args.text, answer, options.top)
    if args.json:
        record = {
            "text": args.text,
            "words": answer.words,
            "pictures": len(gallery.paths),
            "mean_log_prob": answer.mean_log_prob,
            "matches": [
                {"image": str(match.path), "score": match.score, "log_prob": match.log_prob}
                for match in answer.matches[: options.top]
            ],
            "broken": [{"image": str(paths[place]), "error": reason} for place, reason in gallery.broken.items()],
        }
        print(json.dumps(record, ensure_ascii=False))
    else:
        for match in answer.matches[: options.top]:
            print(f"{match.score:+7.2f} {match.log_prob:8.2f}  {flags.one_line(str(match.path))}")
    return flags.FAILED if gallery.broken else flags.DONE


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", help="checkpoint (default: the shipped one)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument(
        "--config", action="store_true", help="print the options it was trained with as a configuration file"
    )


def _info(args: argparse.Namespace) -> int:
    path = find_weights(args.file)
    if args.config:
        print(_configuration(path), end="")
        return flags.DONE

    from captioner.metadata import describe

    description = describe(path)
    if args.json:
        print(json.dumps(description, ensure_ascii=False, indent=2))
        return flags.DONE
    for name, value in description.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                print(f"  {flags.one_line(key)}: {_plain(item)}")
        else:
            print(f"{name}: {_plain(value)}")
    return flags.DONE


def _configuration(path: Path) -> str:
    """The options of a training as a file that ``captioner train --config`` takes."""
    training = read_header(path).training
    datasets, options = training.get("datasets"), training.get("options")
    if not isinstance(datasets, dict) or not isinstance(options, dict):
        raise captioner.CheckpointError(f"{path}: does not say which options it was trained with")
    # The recorded options name the checkpoint that training went on from by its digest; beside is its file.
    table = {**datasets, **options, "init": training.get("init"), "output": path.name}
    given = {name: value for name, value in table.items() if value is not None}
    try:
        values = checked_values(given, where=str(path))
    except captioner.OptionError as error:
        raise captioner.CheckpointError(
            str(error), "another captioner trained it, its options cannot be given back"
        ) from error
    return write_configuration(values)


def _plain(value: object) -> str:
    return flags.one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


_SCORE_EXAMPLES = """\
examples:
  captioner score photo.jpg "a dog runs on the beach"
  captioner score photo.jpg "a dog runs on the beach" --runners-up 3
  captioner score photo.jpg --file sentences.txt --json

A text with words that the model does not know is not scored; the words are named.

exit code: 0 all scored, 1 some lines of the file were not, 2 wrong use, 130 interrupted
"""

_RANK_EXAMPLES = """\
examples:
  captioner rank photo.jpg < candidates.txt
  printf 'a dog on a beach\\na cat on a sofa\\n' | captioner rank photo.jpg --per-word

reads one text a line from standard input; prints log P, log P a word, text; the best text first, those with
words that the model does not know last

exit code: 0 all ranked, 1 some have unknown words, 2 wrong use, 130 interrupted
"""

_EXPLAIN_EXAMPLES = """\
examples:
  captioner explain photo.jpg -o explained.png
  captioner explain photo.jpg -o explained.png --beam-size 1

prints the caption; the file shows the image once for each word, bright where the model looked

exit code: 0 drawn, 2 wrong use, 130 interrupted
"""

_SEARCH_EXAMPLES = """\
examples:
  captioner search PHOTOS "a dog on a beach"
  captioner search PHOTOS "a dog on a beach" --top 50 --html found.html
  captioner search PHOTOS "a dog on a beach" --json

prints score, log P, image; the score is log P(text | image) minus its mean over all images

The first search encodes the images; later ones encode those that are new or have changed.

exit code: 0 all images searched, 1 some cannot be read, 2 wrong use, 130 interrupted
"""

_INFO_EXAMPLES = """\
examples:
  captioner info                          the shipped weights
  captioner info mine.safetensors --json  for programs
  captioner info mine.safetensors --config > mine.toml
                                          how to train it again: captioner train --config mine.toml
"""

COMMANDS = {
    "score": flags.Command(_add_score, _score, _SCORE_EXAMPLES),
    "rank": flags.Command(_add_rank, _rank, _RANK_EXAMPLES),
    "explain": flags.Command(_add_explain, _explain, _EXPLAIN_EXAMPLES),
    "search": flags.Command(_add_search, _search, _SEARCH_EXAMPLES),
    "info": flags.Command(_add_info, _info, _INFO_EXAMPLES),
}
