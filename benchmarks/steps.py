"""What does each step of captioning take for one image on one processor?

    python benchmarks/steps.py IMAGE ... [--weights FILE]

Prints the milliseconds of the fastest of five rounds: reading and resizing, encoding alone, and writing the
captions of all images together. ``benchmarks/folder.py`` runs it with two builds.
"""

import argparse
import os
import time
from collections.abc import Callable

# Before anything starts threads.
os.environ["OMP_NUM_THREADS"] = "1"
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import captioner  # noqa: E402

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+")
    parser.add_argument("--weights", help="checkpoint (default: the shipped one)")
    args = parser.parse_args()

    model = captioner.load(args.weights)
    pixels = [model.preprocess(path) for path in args.images]
    regions = model.encode(pixels)
    steps: dict[str, Callable[[], object]] = {
        "reading": lambda: [model.preprocess(path) for path in args.images],
        "encoding": lambda: [model.encode([each]) for each in pixels],
        "writing": lambda: model.decode(regions, attention=False),
    }
    times = {name: min(map(timed, [step] * ROUNDS)) for name, step in steps.items()}
    print(", ".join(f"{name} {1000 * seconds / len(pixels):.1f}" for name, seconds in times.items()))


def timed(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
