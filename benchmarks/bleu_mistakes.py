"""Measures by how much common mistakes change BLEU, on one set of captions.

    python benchmarks/bleu_mistakes.py annotations/captions_val2017.json

The first human caption of each image is judged by its other captions. The table gives the right figures,
then those of each mistake. "Unknown words" are those that occur fewer than five times, as for a model.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from captioner.metrics.coco import Corpus, bleu, bleu_statistics
from captioner.metrics.ptb.tokenizer import tokenize

Tokenize = Callable[[str], list[str]]
Figures = np.ndarray
RARE = 5


def with_punctuation(text: str) -> list[str]:
    """Punctuation marks stay, each a word of its own."""
    for mark in ".,!?;:":
        text = text.replace(mark, f" {mark} ")
    return text.lower().split()


class Images:
    """Captions to judge and references, as text."""

    def __init__(self, path: Path) -> None:
        captions: dict[int, list[str]] = {}
        for annotation in json.loads(path.read_text(encoding="utf-8"))["annotations"]:
            captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
        self.hypotheses = [texts[0] for texts in captions.values()]
        self.references = [texts[1:] for texts in captions.values()]

    def statistics(self, split: Tokenize, split_references: Tokenize | None = None, most: int | None = None) -> Figures:
        """Statistics of BLEU with one tokeniser, or another for the references, of which `most` are used."""
        theirs = split_references or split
        references = [[theirs(text) for text in texts[:most]] for texts in self.references]
        return bleu_statistics(Corpus.of([split(text) for text in self.hypotheses], references))

    def known_words(self) -> set[str]:
        """Words that occur often enough in the references."""
        counts = Counter(word for texts in self.references for text in texts for word in tokenize(text))
        return {word for word, count in counts.items() if count >= RARE}


def corpus(statistics: Figures) -> Figures:
    return bleu(statistics.sum(axis=0))


def smoothed(statistics: Figures) -> Figures:
    """Adds 1 to matches and guesses of order 2 and above, in each caption (Lin and Och 2004)."""
    changed = statistics.copy()
    changed[:, 1:4] += 1
    changed[:, 5:8] += 1
    return bleu(changed).mean(axis=0)


def rows(images: Images) -> dict[str, Figures]:
    known = images.known_words()

    def unknown(text: str) -> list[str]:
        return [word if word in known else "<unk>" for word in tokenize(text)]

    def dropped(text: str) -> list[str]:
        return [word for word in tokenize(text) if word in known]

    right = images.statistics(tokenize)
    return {
        "right: COCO's formula and tokeniser": corpus(right),
        "mean of the BLEU of single captions": bleu(right).mean(axis=0),
        "the same, smoothed by adding 1": smoothed(right),
        "split at white space, nothing else": corpus(images.statistics(str.split)),
        "split at white space, lower case": corpus(images.statistics(lambda text: text.lower().split())),
        "COCO's tokens for the caption only": corpus(images.statistics(tokenize, str.split)),
        "punctuation kept as words": corpus(images.statistics(with_punctuation)),
        "unknown words in captions and references, `<unk>` a hit": corpus(images.statistics(unknown)),
        "unknown words cut from references only": corpus(images.statistics(tokenize, dropped)),
        "unknown words in captions, `<unk>` no hit (right)": corpus(images.statistics(unknown, tokenize)),
        "three references": corpus(images.statistics(tokenize, most=3)),
        "two references": corpus(images.statistics(tokenize, most=2)),
        "one reference": corpus(images.statistics(tokenize, most=1)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path, help="COCO's captions_val2017.json")
    found = rows(Images(parser.parse_args().annotations))
    right = next(iter(found.values()))
    print("| x100 | BLEU-1 | BLEU-2 | BLEU-3 | BLEU-4 | BLEU-4, difference |")
    print("|---|---|---|---|---|---|")
    for name, figures in found.items():
        cells = [f"{100 * figure:.1f}" for figure in figures] + [f"{100 * (figures[3] - right[3]):+.1f}"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
