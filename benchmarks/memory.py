"""How much memory do a folder run and the idle page take, compared with an earlier build?

    python benchmarks/memory.py [--images 1000 20000] [--source DIR] [--idle 5] [--old COMMIT] [--weights FILE]

Captions folders of so many JPEGs of 640 x 480 with one reading process, and prints the most resident memory that
all processes of the run held together. (Pages that several processes share count once for each.) No two files have
the same bytes. Then it starts the page and prints the resident memory of its server without visitors, some seconds
after it is ready.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from builds import Build, add_old, both_builds, compare, flags, running_server
from jpegs import make_images

DISTINCT = 500  # images that differ to the eye


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="*", default=[1000, 20_000], help="sizes of the folders")
    parser.add_argument("--source", help="folder of images to make them from (default: the samples)")
    parser.add_argument("--idle", type=float, default=5, help="seconds that the page is left alone")
    parser.add_argument("--weights", type=Path, help="checkpoint for both builds (default: the one shipped with each)")
    add_old(parser)
    args = parser.parse_args()

    weights = flags(weights=args.weights)
    with both_builds(args.old) as builds:
        for count in args.images:
            with tempfile.TemporaryDirectory() as temporary:
                make_images(Path(temporary) / "images", count, source=args.source, distinct=DISTINCT)
                old, new = (folder_memory(build, Path(temporary), weights) for build in builds)
            compare(f"folder of {count:,} images, peak memory", [old], [new], "MB", digits=0)
        old, new = (page_memory(build, args.idle, weights) for build in builds)
        compare("idle page, memory", [old], [new], "MB", digits=0)


def folder_memory(build: Build, folder: Path, weights: list[str]) -> float:
    output = folder / f"{build.name}.jsonl"
    options = ["--workers", "1", "--output", output, "--quiet", *weights]
    return build.peak_memory("caption", folder / "images", *options)


def page_memory(build: Build, idle: float, weights: list[str]) -> float:
    with running_server(build, *weights) as server:
        time.sleep(idle)
        return server.megabytes()


if __name__ == "__main__":
    main()
