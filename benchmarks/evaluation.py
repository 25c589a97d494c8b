"""Scores 5,000 images with 5 human captions each, with captioner and with the COCO code in one run.

    python benchmarks/evaluation.py annotations/captions_val2017.json

The first caption of each image is the hypothesis, all of its captions are the references, so that both sides
have the whole file to tokenise. Each side runs in a process of its own and times everything from raw captions
to figures: tokenising, BLEU, ROUGE-L and CIDEr-D. The COCO side (pycocoevalcap) needs Java.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

Captions = dict[int, list[str]]


def read(path: Path) -> Captions:
    captions: Captions = {}
    for annotation in json.loads(path.read_text(encoding="utf-8"))["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    return captions


def ours(captions: Captions) -> list[float]:
    from captioner.metrics.evaluate import score_captions

    return list(score_captions({i: texts[0] for i, texts in captions.items()}, captions).figures.values())


def oracle(captions: Captions) -> list[float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with contextlib.redirect_stdout(sys.stderr):
        references = PTBTokenizer().tokenize({i: [{"caption": t} for t in texts] for i, texts in captions.items()})
        hypotheses = PTBTokenizer().tokenize({i: [{"caption": texts[0]}] for i, texts in captions.items()})
        bleu, _ = Bleu(4).compute_score(references, hypotheses)
        rouge, _ = Rouge().compute_score(references, hypotheses)
        cider, _ = Cider().compute_score(references, hypotheses)
    return [*bleu, float(rouge), float(cider)]


SIDES = {"captioner": ours, "pycocoevalcap": oracle}


def measure(side: str, path: Path) -> None:
    """Runs one side in this process and prints what it took as JSON."""
    captions = read(path)
    start = time.perf_counter()
    figures = SIDES[side](captions)
    seconds = time.perf_counter() - start
    own, child = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"seconds": seconds, "python_mb": own, "java_mb": child, "figures": figures}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path, help="COCO's captions_val2017.json")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side; the fastest counts")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return measure(args.side, args.annotations)
    best = {}
    for side in SIDES:
        command = [sys.executable, __file__, str(args.annotations), "--side", side]
        runs = [
            json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
            for _ in range(args.repeats)
        ]
        best[side] = min(runs, key=lambda run: run["seconds"])
        memory = f"peak memory {best[side]['python_mb']:.0f} MB"
        java = f" and {best[side]['java_mb']:.0f} MB in Java" if best[side]["java_mb"] else ""
        print(f"{side:<14}{best[side]['seconds']:7.2f} s   {memory}{java}")
    mine, theirs = best["captioner"], best["pycocoevalcap"]
    difference = max(abs(a - b) for a, b in zip(mine["figures"], theirs["figures"], strict=True))
    print(f"captioner is {theirs['seconds'] / mine['seconds']:.1f} times as fast")
    print(f"memory of the Python processes: {mine['python_mb'] / theirs['python_mb']:.2f} of pycocoevalcap's")
    print(f"largest difference of a figure: {difference:.1e}")
    return None


if __name__ == "__main__":
    main()
