"""Does a folder run end with the same bytes, whatever happens to it on the way?

    python benchmarks/kills.py [--kills 200] [--images 24] [--seed N] [--minutes 20] [--source DIR]

Captions a small folder, damaged and equal images among it, with the shipped weights in every way that writes to disk:
text, JSON lines, CSV, COCO, a contact sheet, ``metadata.jsonl``, texts beside the images (new ones, and added to those
that are there), XMP files, copies with captions inside, and the images themselves. First undisturbed, then

- killed by ``kill -9`` at random moments and begun again, until it comes through,
- stopped by ``SIGSTOP`` and continued by ``SIGCONT`` at random moments,
- with a disk that is full after a part of the output, and then has room (a small tmpfs; only as root).

After each kill no image may be damaged, and with ``--in-place`` each must be as before or as it is to become. In the
end all files must have the bytes of the undisturbed run. Prints what was done, and ends with exit code 1 if a byte
differs.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builds import REPOSITORY
from fuzz import photos
from jpegs import SAMPLES

# The folder of the images is IMAGES, another one OUT.
WAYS = {
    "text": "--format text --output OUT/captions",
    "jsonl": "--output OUT/captions.jsonl",
    "csv": "--output OUT/captions.csv",
    "coco": "--output OUT/captions.json",
    "html": "--output OUT/captions.html",
    "imagefolder": "--format imagefolder --output IMAGES/metadata.jsonl",
    "sidecar": "--format sidecar",
    "append": "--format sidecar --if-exists append",
    "xmp": "--format xmp",
    "copies": "--embed --output OUT",
    "in place": "--embed --in-place",
}
PATIENCE = 120  # seconds for one run
ROOM = 16 << 20  # bytes of a disk that is not full


@dataclass
class Place:
    """A folder in which one command is given again and again.

    Attributes:
        way: one of :data:`WAYS`.
        top: the folder; ``images`` and ``out`` are in it.
    """

    way: str
    top: Path

    @property
    def images(self) -> Path:
        """The folder of the images."""
        return self.top / "images"

    def fill(self, originals: Path) -> None:
        """Begin anew: the images as they were, and nothing else."""
        for folder in (self.images, self.top / "out"):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(originals, self.images)
        (self.top / "out").mkdir()
        for number, image in enumerate(sorted(self.images.iterdir()) if self.way == "append" else ()):
            image.with_suffix(".txt").write_text("by hand" * (number % 2))

    def start(self) -> subprocess.Popen[str]:
        """Start the command."""
        places = {"IMAGES": str(self.images), "OUT": str(self.top / "out")}
        words = [re.sub("IMAGES|OUT", lambda found: places[found[0]], word) for word in ways(self.way)]
        command = [sys.executable, "-m", "captioner", "caption", str(self.images), *words]
        more = ["--batch-size", "2", "--workers", "1", "--beam-size", "2"]
        pipe = subprocess.PIPE
        return subprocess.Popen([*command, *more], cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True)

    def run(self) -> str:
        """Run the command to its end; its messages."""
        process = self.start()
        _, messages = process.communicate(timeout=PATIENCE)
        if process.returncode not in (0, 1) or "Traceback" in messages:
            raise BrokenPromiseError(f"{self.way}: exit code {process.returncode}: {messages[-2000:]}")
        return messages

    def contents(self) -> dict[str, bytes]:
        """All files but the books that a run keeps beside its output."""
        outputs = [word.rpartition("/")[2] for word in ways(self.way) if "/" in word]
        files = [path for path in sorted(self.top.rglob("*")) if path.is_file()]
        return {
            str(path.relative_to(self.top)): path.read_bytes()
            for path in files
            if not any(path.name.startswith((f"{output}.", f"{output}-")) for output in outputs)
        }


class BrokenPromiseError(Exception):
    """A promise that was not kept."""


def ways(way: str) -> list[str]:
    return WAYS[way].split(" ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20, help="begin nothing new after so long")
    parser.add_argument("--source", type=Path, default=SAMPLES, help="folder of photos (default: the samples)")
    args = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that no disk stays mounted
    chance, end, broken = random.Random(args.seed), time.monotonic() + 60 * args.minutes, []
    with tempfile.TemporaryDirectory() as temporary:
        originals = Path(temporary) / "originals"
        make_originals(originals, args.images, args.source, chance)
        expected, seconds = {}, {}
        for way in WAYS:
            place = Place(way, Path(temporary) / way.replace(" ", "-"))
            place.fill(originals)
            start = time.monotonic()
            place.run()
            seconds[way], expected[way] = time.monotonic() - start, place.contents()
        for number, way in enumerate(WAYS):
            share = args.kills * (number + 1) // len(WAYS) - args.kills * number // len(WAYS)
            place = Place(way, Path(temporary) / way.replace(" ", "-"))
            try:
                done = kill(place, originals, expected[way], share, seconds[way], chance, end)
                stop(place, originals, expected[way], seconds[way], chance)
                full = fill_disk(place, originals, expected[way], chance)
                print(f"{way:12} {done} of {share} kills, stopped and continued, {full}: the same bytes", flush=True)
            except BrokenPromiseError as error:
                broken.append(str(error))
                print(f"{way:12} BROKEN: {error}", flush=True)
    print("promises were broken" if broken else "all promises kept")
    sys.exit(bool(broken))


def make_originals(folder: Path, count: int, source: Path, chance: random.Random) -> None:
    """Images with COCO's names: every eighth is damaged, every ninth equal to the third before it."""
    folder.mkdir()
    pictures = photos(source, count, chance)
    for number in range(count):
        path = folder / f"{number:012}.{('jpg', 'png', 'webp')[number % 3]}"
        picture = pictures[number % len(pictures)].rotate(number)
        picture.save(path, quality=80)
        if number % 8 == 7:
            path.write_bytes(path.read_bytes()[: 200 + number])
        elif number % 9 == 8:
            shutil.copy(folder / f"{number - 3:012}{path.suffix}", path)


def kill(
    place: Place,
    originals: Path,
    expected: dict[str, bytes],
    count: int,
    seconds: float,
    chance: random.Random,
    end: float,
) -> int:
    """Kill runs at random moments, up to three times in a row, and let each come through; how often."""
    done = 0
    while done < count and time.monotonic() < end:
        place.fill(originals)
        for _ in range(min(chance.randint(1, 3), count - done)):
            process = place.start()
            time.sleep(chance.uniform(0.2, 1) * seconds)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            if process.returncode == -signal.SIGKILL:
                done += 1
                check_images(place, originals, expected)
        place.run()
        compare(place, expected, "after kill -9")
    return done


def check_images(place: Place, originals: Path, expected: dict[str, bytes]) -> None:
    """Each image must be whole: as before, or as the undisturbed run has left it."""
    for original in originals.iterdir():
        data = (place.images / original.name).read_bytes()
        if data not in (original.read_bytes(), expected[f"images/{original.name}"]):
            raise BrokenPromiseError(f"{place.way}: {original.name} was damaged")


def compare(place: Place, expected: dict[str, bytes], when: str) -> None:
    found = place.contents()
    wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if wrong:
        raise BrokenPromiseError(f"{place.way}: other bytes {when}: {', '.join(wrong[:5])}")


def stop(
    place: Place, originals: Path, expected: dict[str, bytes], seconds: float, chance: random.Random, times: int = 4
) -> None:
    """Stop and continue a run at random moments."""
    place.fill(originals)
    process = place.start()
    for _ in range(times):
        time.sleep(chance.uniform(0, seconds / times))
        process.send_signal(signal.SIGSTOP)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGCONT)
    process.communicate(timeout=PATIENCE)
    compare(place, expected, "after SIGSTOP and SIGCONT")


def fill_disk(place: Place, originals: Path, expected: dict[str, bytes], chance: random.Random) -> str:
    """Run on a disk that is full after a part of the output, then with room; what was done, in words."""
    disk = Place(place.way, place.top.with_name(f"{place.top.name}-disk"))
    with small_disk(disk.top) as has_disk:
        if not has_disk:
            return "no full disk (only root may mount one)"
        disk.fill(originals)
        used = sum(path.stat().st_blocks * 512 for path in disk.top.rglob("*") if path.is_file())
        need = max(sum(map(len, expected.values())) - used, 1 << 15)
        resize(disk.top, used + int(chance.uniform(0.1, 0.9) * need) + (1 << 14))
        process = disk.start()
        _, messages = process.communicate(timeout=PATIENCE)
        if "Traceback" in messages:
            raise BrokenPromiseError(f"{place.way}: with a full disk: {messages[-2000:]}")
        check_images(disk, originals, expected)
        resize(disk.top, ROOM)
        disk.run()
        here, there = os.fsencode(place.top), os.fsencode(disk.top)
        compare(disk, {name: data.replace(here, there) for name, data in expected.items()}, "after a full disk")
        return f"a full disk (exit code {process.returncode})"


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a disk in memory; whether that is allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def resize(folder: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


if __name__ == "__main__":
    main()
