"""Does captioning survive ten thousand damaged files?

    python benchmarks/damaged.py [--files 10000] [--seed N] [--source DIR] [--keep DIR]

Makes damaged JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF and HEIC files from photos (see ``fuzz.py``): those of DIR, or of
CAPTIONER_DATA, or else the samples. Captions them with the shipped weights and one reading process, while it watches
the memory of all processes. Then it opens each file once more, to find the slowest and the largest. Prints what became
of the files, and ends with exit code 1 if a promise is broken:

- the run ends by itself, with exit code 0 or 1, and nothing but messages on standard error,
- each file has one record, a caption or a reason,
- all processes together never hold more than 500 MB,
- no file takes more than 5 seconds.

Without ``--seed`` each run makes other files. ``--keep`` keeps those that broke a promise.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from builds import REPOSITORY, resident_memory
from fuzz import make_damaged
from jpegs import SAMPLES

import captioner
from captioner.errors import CaptionerError

MOST_MEGABYTES = 500
MOST_SECONDS = 5
SIDE = 260  # pixels, as the shipped weights want images
MOST_REASONS = 20  # that are printed
_BETWEEN_SAMPLES = 0.1  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--source", type=Path, help="folder of photos (default: CAPTIONER_DATA/mixed, or the samples)")
    parser.add_argument("--keep", type=Path, help="folder for files that broke a promise")
    args = parser.parse_args()

    broken: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder, output = Path(temporary) / "images", Path(temporary) / "captions.jsonl"
        size = make_damaged(folder, args.files, args.source or photos(), args.seed)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        print(f"{args.files:,} files, {size / 1e6:,.0f} MB, seed {args.seed}", flush=True)
        broken += caption(folder, output, len(files))
        broken += check_records(output, files)
        slow = open_each(files)
        broken += [f"{path.name}: took {seconds:.1f} s to open" for path, seconds in slow]
        for path, _ in slow if args.keep else ():
            args.keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, args.keep)
    print("\n".join(["broken promises:", *broken]) if broken else "all promises kept")
    sys.exit(bool(broken))


def photos() -> Path:
    """Where photos are: real ones, if there are any."""
    real = Path(os.environ.get("CAPTIONER_DATA", "/nowhere")) / "mixed" / "images"
    return real if real.is_dir() else SAMPLES


def caption(folder: Path, output: Path, count: int) -> list[str]:
    """Run ``captioner caption``; print what it took and return what was wrong with it."""
    command = [sys.executable, "-m", "captioner", "caption", str(folder), "--output", str(output), "--workers", "1"]
    start, most = time.monotonic(), 0.0
    limit = 120 + count * 0.5
    messages = output.with_suffix(".messages")
    with messages.open("w") as errors:
        process = subprocess.Popen(command, stderr=errors, stdout=subprocess.DEVNULL, cwd=REPOSITORY)
        while process.poll() is None and time.monotonic() - start < limit:
            most = max(most, resident_memory(process.pid))
            time.sleep(_BETWEEN_SAMPLES)
    seconds = time.monotonic() - start
    wrong = []
    if process.poll() is None:
        process.kill()
        wrong.append(f"the run did not end within {limit:.0f} s")
    said = messages.read_text(errors="replace").splitlines()
    odd = [line for line in said if not line.startswith("captioner: ")]
    print(f"run: {seconds:.0f} s, {count / seconds:.1f} files/s, at most {most:.0f} MB, exit code {process.wait()}")
    print(f"     {said[-1] if said else ''}")
    if process.returncode not in (0, 1):
        wrong.append(f"exit code {process.returncode}")
    if most > MOST_MEGABYTES:
        wrong.append(f"{most:.0f} MB of memory")
    return wrong + [f"unexpected on standard error: {line}" for line in odd[:30]]


def check_records(output: Path, files: list[Path]) -> list[str]:
    """Print what became of the files; return those without a record of their own."""
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    counts = Counter(record["image"] for record in records)
    reasons = Counter(reason(record) for record in records if "error" in record)
    captioned = sum(bool(record.get("caption")) for record in records)
    print(f"records: {captioned:,} captioned, {reasons.total():,} refused")
    for text, count in reasons.most_common(MOST_REASONS):
        print(f"  {count:6,}  {text}")
    if others := sorted(reasons.values(), reverse=True)[MOST_REASONS:]:
        print(f"  {sum(others):6,}  for {len(others)} other reasons")
    wrong = [f"{path.name}: {counts[str(path)]} records" for path in files if counts[str(path)] != 1]
    wrong += [f"{record['image']}: neither caption nor reason" for record in records if not record_says(record)]
    return wrong


def record_says(record: dict[str, str]) -> bool:
    return bool(record.get("caption")) != bool(record.get("error"))


def reason(record: dict[str, str]) -> str:
    """Why a file was refused, without what differs from file to file."""
    text = record["error"].removeprefix(f"{record['image']}: ")
    return re.sub(r"(0x)?\b[0-9a-f]*\d[\d,a-f]*\b", "N", re.sub(r"(\\x..|b['\"].*?['\"])+", "B", text))[:110]


def open_each(files: list[Path]) -> list[tuple[Path, float]]:
    """Open each file in a process that may crash; print the extremes and return the files that took too long."""
    times: dict[Path, float] = {}
    growth: dict[Path, float] = {}
    crashed: list[Path] = []
    waiting = list(files)
    while waiting:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, waiting))
        process.start()
        theirs.close()
        done = 0
        try:
            while done < len(waiting):
                # Other programs may be busy; the time of the processor is counted in the process itself.
                if not ours.poll(12 * MOST_SECONDS):
                    raise EOFError
                times[waiting[done]], growth[waiting[done]] = ours.recv()
                done += 1
        except EOFError:
            crashed += [waiting[done]] if process.exitcode is not None or not process.is_alive() else []
            times[waiting[done]] = MOST_SECONDS + 1.0 if process.is_alive() else 0.0
            done += 1
            process.kill()
        process.join()
        waiting = waiting[done:]
    slowest, largest = max(times, key=times.__getitem__), max(growth, key=growth.__getitem__)
    print(f"slowest file: {times[slowest]:.2f} s, {slowest.name}")
    print(f"largest file: memory grew by {growth[largest]:.0f} MB, {largest.name}")
    print(f"codecs crashed on {len(crashed)} files, each of which cost a reading process and no more")
    return [(path, seconds) for path, seconds in times.items() if seconds > MOST_SECONDS]


def serve(answers: Connection, files: list[Path]) -> None:
    """Open files one after the other; say of each how long it took, and how many MB of memory."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for path in files:
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        before, start = megabytes("VmRSS"), time.process_time()
        with suppress(CaptionerError):
            captioner.open_image(path, min_size=SIDE)
        answers.send((time.process_time() - start, megabytes("VmHWM") - before))


def megabytes(name: str) -> float:
    """Of this process: ``VmRSS``, what it holds, or ``VmHWM``, the most that it has held."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1000


if __name__ == "__main__":
    main()
