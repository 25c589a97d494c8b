"""How fast is captioning a folder, compared with an earlier build and with the encoder alone?

    python benchmarks/folder.py [--images 1000] [--source DIR] [--rounds 3] [--runtime NAME] [--precision NAME]
                                [--weights FILE] [--old COMMIT] [OPTION ...]

Makes a folder of different JPEGs of 640 x 480 pixels from the sample images, or from those in DIR. In each round
the old build captions it, then the new one, and then the encoder of the new one is timed alone, with pixels in
memory, in as many threads as there are processors. Other options, such as ``--beam-size 3``, are passed on to
``captioner caption``. Prints medians of

(a) images/s from the first file read to the last record on disk, of both builds,
(b) images/s of the whole command, with starting Python and loading the model,
(c) images/s of the encoder alone, and the ratio of the new (a) to it,
(d) the milliseconds that each step takes for one image on one processor, in both builds,

and the share of images whose captions are equal.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from builds import Build, add_new, add_old, both_builds, compare, flags
from jpegs import make_images

import captioner

TOGETHER = 16  # images of a batch of ``captioner caption``
ENCODED = 320  # images, in each measurement of the encoder
STEPS = Path(__file__).resolve().with_name("steps.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--source", help="folder of images to make them from (default: the samples)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", type=Path, help="checkpoint for both builds (default: the one shipped with each)")
    add_new(parser)
    add_old(parser)
    args, others = parser.parse_known_args()
    weights = flags(weights=args.weights)
    of_new = flags(runtime=args.runtime, precision=args.precision)

    threads = len(os.sched_getaffinity(0))
    with both_builds(args.old) as builds, tempfile.TemporaryDirectory() as temporary:
        images, output = Path(temporary) / "images", Path(temporary) / "captions.jsonl"
        make_images(images, args.images, source=args.source)
        print(f"{args.images:,} JPEGs of 640 x 480, {threads} processors, {args.rounds} rounds", flush=True)
        paths = list(captioner.find_images([images]))[:TOGETHER]
        model = captioner.load(args.weights, runtime=args.runtime or "onnx", precision=args.precision or "auto")
        rates: dict[str, list[float]] = {"old": [], "new": [], "encoder": []}
        whole: dict[str, list[float]] = {"old": [], "new": []}
        captions = {}
        for _ in range(args.rounds):
            for build in builds:
                options = [*weights, *others, *(of_new if build.name == "new" else [])]
                rate, seconds = caption_folder(build, images, output, options)
                rates[build.name].append(rate)
                whole[build.name].append(args.images / seconds)
                captions[build.name] = read_captions(output)
            rates["encoder"].append(encoder_speed(model, paths, threads))
        compare("(a) folder, end to end", rates["old"], rates["new"], "images/s", more=True)
        compare("(b) whole command", whole["old"], whole["new"], "images/s", more=True)
        folder, encoder = (statistics.median(rates[name]) for name in ("new", "encoder"))
        print(f"(c) encoder alone, {threads} threads: {encoder:.1f} images/s, folder / encoder {folder / encoder:.2f}")
        print("(d) milliseconds an image on one processor:")
        for build in builds:
            printed, _ = build.read(STEPS, *map(Path.resolve, paths), *weights)
            print(f"    {build.name}: {printed.strip()}")
        equal = sum(captions["old"][name] == caption for name, caption in captions["new"].items())
        print(f"equal captions: {equal} of {args.images} ({100 * equal / args.images:.1f} %)")


def caption_folder(build: Build, images: Path, output: Path, options: list[str]) -> tuple[float, float]:
    """Images/s that the command itself reports, and seconds of the whole command."""
    start = time.perf_counter()
    command = ["-m", "captioner", "caption", images, "--output", output, "--overwrite", *options]
    _, messages = build.read(*command)
    seconds = time.perf_counter() - start
    return float(re.findall(r"([\d.]+) (?:images|pictures)/s", messages)[-1]), seconds


def read_captions(output: Path) -> dict[str, str]:
    records = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    return {record["image"]: record["caption"] for record in records}


def encoder_speed(model: captioner.Captioner, paths: list[Path], threads: int) -> float:
    """Images/s on pixels in memory: one image a thread, or a batch whose work is shared, whichever is faster."""
    pixels = [model.preprocess(path) for path in paths]
    rounds = max(1, ENCODED // len(pixels))
    with ThreadPoolExecutor(threads) as pool:
        ways: list[Callable[[], object]] = [
            lambda: list(pool.map(model.encode, [[each] for each in pixels])),
            lambda: model.encode(pixels),
        ]
        return max(rounds * len(pixels) / timed(way, rounds) for way in ways)


def timed(work: Callable[[], object], rounds: int) -> float:
    work()
    start = time.perf_counter()
    for _ in range(rounds):
        work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
