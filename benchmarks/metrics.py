"""Scores the same captions with captioner and with the tools of the field, and prints a table of who differs.

    python -O benchmarks/metrics.py FLICKR8K

The fifth human caption of each image of Flickr8k's dev split is judged by the other four. Each tool gets the raw
captions, as its documentation calls it, and then the tokens of the COCO code, so that what is left is its formula.
Needs pycocoevalcap with Java, aac-metrics, torchmetrics, nltk and sacrebleu; a tool that is absent is left out. METEOR
of nltk is computed without WordNet's synonyms.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy.typing  # noqa: F401 - aac-metrics keeps NumPy below 2, which does not import it by itself

from captioner.datasets import DatasetOptions, read_records
from captioner.metrics.evaluate import score_captions
from captioner.metrics.java import meteor
from captioner.metrics.ptb.tokenizer import tokenize_lines

Figures = dict[str, float]
COLUMNS = ("BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr", "METEOR")


class Captions:
    """Candidates and references, raw or as tokens with blanks between them."""

    def __init__(self, folder: Path, count: int) -> None:
        records = [r for r in read_records(DatasetOptions((f"flickr8k:{folder}",)), "dev") if len(r.captions) == 5][
            :count
        ]
        self.candidates = [record.captions[4] for record in records]
        self.references = [list(record.captions[:4]) for record in records]

    def tokenised(self) -> Captions:
        """The same captions as the COCO code sees them."""
        other = object.__new__(Captions)
        other.candidates = [" ".join(words) for words in tokenize_lines(self.candidates)]
        lines = iter(tokenize_lines([text for texts in self.references for text in texts]))
        other.references = [[" ".join(next(lines)) for _ in texts] for texts in self.references]
        return other


def of_captioner(captions: Captions) -> Figures:
    figures = score_captions(dict(enumerate(captions.candidates)), dict(enumerate(captions.references))).figures
    tokens = tokenize_lines(captions.candidates)
    human = [tokenize_lines(texts) for texts in captions.references]
    return {**figures, "METEOR": meteor(tokens, human)}


def of_pycocoevalcap(captions: Captions) -> Figures:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    split = PTBTokenizer().tokenize
    references = split({i: [{"caption": t} for t in texts] for i, texts in enumerate(captions.references)})
    candidates = split({i: [{"caption": text}] for i, text in enumerate(captions.candidates)})
    bleu, _ = Bleu(4).compute_score(references, candidates, verbose=0)
    others = {"ROUGE-L": Rouge(), "CIDEr": Cider(), "METEOR": Meteor()}
    scores = {name: float(metric.compute_score(references, candidates)[0]) for name, metric in others.items()}
    return {"BLEU-1": bleu[0], "BLEU-4": bleu[3], **scores}


def of_aac_metrics(captions: Captions) -> Figures:
    """Its functions alone, without its tokeniser, which is that of the COCO code.

    Its METEOR refuses Java above 13, except where Python leaves out checks (``python -O``). Then it runs the jar of
    pycocoevalcap.
    """
    from aac_metrics.functional import bleu_1, bleu_4, cider_d, meteor, rouge_l

    scores: dict[str, Any] = {"BLEU-1": bleu_1, "BLEU-4": bleu_4, "ROUGE-L": rouge_l, "CIDEr": cider_d}
    given = (captions.candidates, captions.references)
    figures = {name: float(score(*given, return_all_scores=False)) for name, score in scores.items()}
    if not __debug__:
        from pycocoevalcap.meteor import meteor as bundled

        with tempfile.TemporaryDirectory() as cache:
            (Path(cache) / "aac-metrics").mkdir()
            (Path(cache) / "aac-metrics" / "meteor").symlink_to(Path(bundled.__file__).parent)
            figures["METEOR"] = float(meteor(*given, return_all_scores=False, cache_path=cache))
    return figures


def of_torchmetrics(captions: Captions) -> Figures:
    from torchmetrics.functional.text import bleu_score, rouge_score

    given = (captions.candidates, captions.references)
    rouge = rouge_score(*given, accumulate="best", rouge_keys="rougeL")
    figures = {f"BLEU-{n}": float(bleu_score(*given, n_gram=n)) for n in (1, 4)}
    return {**figures, "ROUGE-L": float(rouge["rougeL_fmeasure"])}


class NoSynonyms:
    """In the place of WordNet."""

    def synsets(self, word: str) -> list[object]:
        """No word has any."""
        return []


def of_nltk(captions: Captions) -> Figures:
    from nltk.translate.bleu_score import corpus_bleu
    from nltk.translate.meteor_score import meteor_score

    candidates = [text.split() for text in captions.candidates]
    references = [[text.split() for text in texts] for texts in captions.references]
    scores = [
        meteor_score(human, machine, wordnet=NoSynonyms())
        for human, machine in zip(references, candidates, strict=True)
    ]
    return {
        "BLEU-1": corpus_bleu(references, candidates, weights=(1,)),
        "BLEU-4": corpus_bleu(references, candidates),
        "METEOR": sum(scores) / len(scores),
    }


def of_sacrebleu(captions: Captions) -> Figures:
    from sacrebleu.metrics import BLEU

    streams = [list(texts) for texts in zip(*captions.references, strict=True)]
    return {f"BLEU-{n}": BLEU(max_ngram_order=n).corpus_score(captions.candidates, streams).score / 100 for n in (1, 4)}


TOOLS: dict[str, Callable[[Captions], Figures]] = {
    "captioner": of_captioner,
    "pycocoevalcap": of_pycocoevalcap,
    "aac-metrics": of_aac_metrics,
    "torchmetrics": of_torchmetrics,
    "nltk": of_nltk,
    "sacrebleu": of_sacrebleu,
}


def row(tool: str, what: str, figures: Figures, ours: Figures) -> str:
    cells = []
    for name in COLUMNS:
        if name not in figures:
            cells.append("")
            continue
        difference = 100 * (figures[name] - ours[name])
        shown = "" if tool == "captioner" else " (0)" if abs(difference) < 1e-6 else f" ({difference:+.2f})"
        cells.append(f"{100 * figures[name]:.2f}{shown}")
    return f"| {tool} | {what} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Flickr8k, as --dataset flickr8k reads it")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS), help="beside captioner")
    args = parser.parse_args()
    captions = Captions(args.folder, args.images)
    print(f"{len(captions.candidates):,} captions, {sum(map(len, captions.references)):,} references", file=sys.stderr)
    print(f"| tool | captions | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 2)}")
    ours: Figures = {}
    for tool in dict.fromkeys(["captioner", *args.tools]):
        for what, given in {"raw": captions, "COCO's tokens": captions.tokenised()}.items():
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    figures = TOOLS[tool](given)
            except ImportError as error:
                print(f"{tool} is left out: {error}", file=sys.stderr)
                break
            ours = ours or figures
            print(row(tool if tool == "captioner" else f"{tool} {version(tool)}", what, figures, ours), flush=True)


if __name__ == "__main__":
    main()
