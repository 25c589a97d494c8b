"""How long does the first caption take from a cold start, and how much memory, compared with an earlier build?

    python benchmarks/start.py [IMAGE] [--rounds 10] [--old COMMIT] [--weights FILE]

Starts a new Python for each measurement, the builds in turn: ``captioner caption IMAGE``, which imports, loads the
checkpoint and captions one image, and ``captioner --help``. Files are in memory already. Prints the medians.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from builds import REPOSITORY, Run, add_old, both_builds, compare, flags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", type=Path, default=REPOSITORY / "data" / "samples" / "dogs.jpg")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--weights", type=Path, help="checkpoint for both builds (default: the one shipped with each)")
    add_old(parser)
    args = parser.parse_args()

    weights = flags(weights=args.weights)
    commands = {
        f"captioner caption {args.image.name}": ["caption", args.image.resolve(), "--quiet", *weights],
        "captioner --help": ["--help"],
    }
    with both_builds(args.old) as builds:
        for name, command in commands.items():
            runs: dict[str, list[Run]] = {build.name: [] for build in builds}
            for number in range(args.rounds + 1):
                for build in builds:
                    run = build.run(*command)
                    if number > 0:  # once untimed, so that files are in memory
                        runs[build.name].append(run)
            seconds = [[run.seconds for run in found] for found in runs.values()]
            memory = [[run.megabytes for run in found] for found in runs.values()]
            compare(name, *seconds, "s", digits=3)
            compare(f"{name}, peak memory", *memory, "MB", digits=0)


if __name__ == "__main__":
    main()
