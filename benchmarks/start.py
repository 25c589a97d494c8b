"""How long does the first caption take from a cold start, against importing torch and torchvision alone?

    python benchmarks/start.py [IMAGE] [--weights FILE] [--rounds 5]

Starts a new Python for each measurement, in turn: one that only imports torch and torchvision, and
``captioner caption IMAGE``, which also loads the checkpoint and captions one image. Prints the medians and
their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

SAMPLE = Path(__file__).parents[1] / "data" / "samples" / "dogs.jpg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", default=str(SAMPLE))
    parser.add_argument("--weights", help="checkpoint (default: the shipped one)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    weights = [] if args.weights is None else ["--weights", args.weights]
    caption = [sys.executable, "-m", "captioner", "caption", args.image, "--quiet", *weights]
    imports = [sys.executable, "-c", "import torch, torchvision"]
    for command in (imports, caption):  # once untimed, so that files are in memory for both
        seconds(command)
    rounds = [(seconds(imports), seconds(caption)) for _ in range(args.rounds)]
    importing, captioning = (statistics.median(row) for row in zip(*rounds, strict=True))
    print(f"import torch, torchvision: {importing:.2f} s")
    print(f"captioner caption {Path(args.image).name}: {captioning:.2f} s")
    print(f"ratio: {captioning / importing:.2f}")


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
