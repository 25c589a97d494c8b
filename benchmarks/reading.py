"""How fast are images read, without a network, compared with ``find -type f | xargs cat``?

    python benchmarks/reading.py [--files 20000] [--side 200] [--workers 1 2 64] [--delay 0.02] [--delayed 1000]

Makes a folder of small JPEGs and prints files/s and MB/s of

(a) ``find -type f | xargs cat``, whose output is thrown away, in one process and in 64,
(b) listing and reading the files as captioner does, not decoded, in one thread,
(c) reading, decoding and scaling in so many reading processes, as in ``captioner caption --workers N``.

Each is measured with the files in memory, and as root also from the disk, after the system's cache has been dropped.
What the disk keeps in its own memory, and the host of a virtual machine in its, cannot be dropped from here.

To slow a disk down takes rights that a benchmark should not have. Instead, (d) each reading process waits before each
of some files, 20 ms unless ``--delay`` says otherwise: as long as a disk that has to move its head, or a network
drive. That stands for a delay that processes wait for at the same time, not for a narrow line that they share.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from jpegs import make_images
from slow_reader import SlowReader

import captioner
from captioner.images import read_file
from captioner.images.reading import ImageReader, Readers

SIDE = 260  # pixels, as the shipped weights want images
DISTINCT = 500  # images that differ to the eye
CACHES = Path("/proc/sys/vm/drop_caches")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=200, help="pixels of the long side of an image")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 64])
    parser.add_argument("--delay", type=float, default=0.02, help="seconds before each file of (d)")
    parser.add_argument("--delayed", type=int, default=1000, help="files of (d)")
    parser.add_argument("--folder", type=Path, help="on which disk (default: a temporary folder)")
    args = parser.parse_args()

    preprocessing = captioner.load().preprocessing
    fast = ImageReader(preprocessing, captioner.FolderOptions().pixel_limit)
    slow = SlowReader(preprocessing, fast.max_pixels, seconds=args.delay)
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary) / "images"
        size = (args.side, args.side * 3 // 4)
        make_images(folder, args.files, distinct=min(DISTINCT, args.files), size=size)
        megabytes = sum(path.stat().st_size for path in folder.rglob("*.jpg")) / 1e6
        print(f"{args.files:,} files of {1000 * megabytes / args.files:.1f} kB, {os.cpu_count()} processors")
        ways: dict[str, Callable[[], object]] = {
            "(a) find | xargs cat": lambda: cat(folder, 1),
            "(a) find | xargs -P 64 cat": lambda: cat(folder, 64),
            "(b) listed and read, one thread": lambda: [len(read_file(path)) for path in listed(folder)],
        } | {
            f"(c) read and decoded, {count} workers": lambda count=count: read(fast, count, listed(folder))  # type: ignore[misc]
            for count in args.workers
        }
        for what, way in ways.items():
            rates = [measure(way, cold) for cold in (False, True) if not cold or os.access(CACHES, os.W_OK)]
            shown = (f"{args.files / seconds:9,.0f} files/s {megabytes / seconds:7,.1f} MB/s" for seconds in rates)
            print(f"{what:34}{' | from the disk'.join(shown)}", flush=True)
        some = listed(folder)[: args.delayed]
        for count in args.workers:
            seconds = measure(lambda count=count: read(slow, count, some), False)  # type: ignore[misc]
            rate = len(some) / seconds
            print(f"(d) {1000 * args.delay:.0f} ms before each, {count} workers{rate:13,.0f} files/s", flush=True)


def listed(folder: Path) -> list[Path]:
    return list(captioner.find_images([folder]))


def cat(folder: Path, processes: int) -> None:
    command = f"find '{folder}' -type f -print0 | xargs -0 -n 500 -P {processes} cat > /dev/null"
    subprocess.run(command, shell=True, check=True)


def read(reader: ImageReader, workers: int, paths: list[Path]) -> None:
    with Readers(reader, workers) as readers:
        for path, loaded in readers.read(paths, ahead=4 * workers + 16):
            assert loaded.pixels is not None, path


def measure(way: Callable[[], object], cold: bool) -> float:
    """Seconds, after a round that is not counted unless the files come from the disk."""
    if cold:
        os.sync()
        CACHES.write_text("3")
    else:
        way()
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
