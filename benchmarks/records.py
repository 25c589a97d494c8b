"""What do the books of a folder run cost, compared with an earlier build: listing, writing, resuming, merging?

    python benchmarks/records.py [--records 1000000] [--shards 8] [--folder DIR] [--old COMMIT] [--alone]

Makes a folder of so many images (links to one file), and runs both builds over it with a reader and a network that
answer at once (see ``fake_run.py``), so that nothing is measured but finding images and keeping records:

(a) a dry run: everything is listed,
(b) a run that is broken off in the middle: seconds until the first image is captioned, records/s,
(c) the same command again: seconds until it goes on, and the rest,
(d) the same command, with nothing left to do,
(e) a run without a break, whose output must have the same bytes,
(f) shards (not timed), and joining them: the output must have the same bytes again.

Prints seconds, without the import of modules, and the most memory of each: of both builds, or of the new one alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

from builds import Build, add_old, both_builds
from jpegs import SAMPLES

FAKE = Path(__file__).resolve().with_name("fake_run.py")
A_FOLDER = 10_000  # images
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--alone", action="store_true", help="leave out the old build")
    add_old(parser)
    args = parser.parse_args()

    with both_builds(args.old) as builds, tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        top = Path(temporary)
        start = time.perf_counter()
        make_links(top / "images", args.records)
        print(f"{args.records:,} images, made in {time.perf_counter() - start:.0f} s", flush=True)
        measured = builds[1:] if args.alone else builds
        found = {build.name: measure(build, top, args.records, args.shards) for build in measured}
    print(f"\n{'':32}{''.join(f'{name:>22}' for name in found)}{'' if args.alone else '   old / new'}")
    for what, new in found["new"].items():
        old = found.get("old", found["new"])[what]
        ratio = "" if args.alone else f"{old['seconds'] / new['seconds']:12.1f}"
        print(f"{what:32}{''.join(f'{shown(each[what]):>22}' for each in found.values())}{ratio}")


def shown(figures: Figures) -> str:
    return f"{figures['seconds']:,.2f} s, {figures['megabytes']:,.0f} MB"


def make_links(folder: Path, count: int) -> None:
    """Many images in folders of ten thousand: links to one file, which take no room of their own."""
    photo = folder.with_name("photo.jpg")
    photo.write_bytes(next(SAMPLES.glob("*.jpg")).read_bytes())
    for number in range(count):
        if number % A_FOLDER == 0:
            below = folder / f"{number // A_FOLDER:03}"
            below.mkdir(parents=True)
        (below / f"IMG_{number:07}.jpg").symlink_to(photo)


def measure(build: Build, top: Path, count: int, shards: int) -> dict[str, Figures]:
    """All steps with one build."""
    place = top / build.name
    place.mkdir()
    output, whole, joined = (place / f"{name}.jsonl" for name in ("broken", "whole", "joined"))
    images = str(top / "images")
    found: dict[str, Figures] = {}
    found["(a) list everything, dry run"] = fake(build, images, "--dry-run")
    broken = fake(build, images, "--output", output, "--die-at", count // 2)
    found["(b) until the first image"] = {**broken, "seconds": broken["first"]}
    resumed = fake(build, images, "--output", output)
    found["(c) broken off: until it goes on"] = {**resumed, "seconds": resumed["first"]}
    found["(c) broken off: the other half"] = resumed
    found["(d) nothing left to do"] = fake(build, images, "--output", output)
    found["(e) without a break"] = fake(build, images, "--output", whole)
    parts = [place / f"part-{number:02}.jsonl" for number in range(1, shards + 1)]
    for number, part in enumerate(parts, start=1):
        fake(build, images, "--output", part, "--shard", f"{number}/{shards}")
    found[f"(f) join {shards} shards"] = fake(build, "--merge", *parts, "--output", joined)
    check(build, count, output, whole, joined)
    return found


def fake(build: Build, *arguments: object) -> Figures:
    _, messages = build.read(FAKE, *map(str, arguments))
    figures: Figures = json.loads(messages.splitlines()[-1])
    print(f"{build.name}: {' '.join(map(str, arguments[1:]))}: {figures}", file=sys.stderr, flush=True)
    return figures


def check(build: Build, count: int, *outputs: Path) -> None:
    """Each output has a record of each image, in order, and all have the same bytes."""
    digests = set()
    for output in outputs:
        digest = hashlib.sha256()
        with output.open("rb") as file:
            for number, line in enumerate(file):
                digest.update(line)
                if b"/IMG_%07d.jpg" % number not in line:
                    sys.exit(f"the {build.name} build: {output.name} has another record at place {number}")
        digests.add((number + 1, digest.digest()))
    if len(digests) > 1 or number + 1 != count:
        sys.exit(f"the {build.name} build: {', '.join(each.name for each in outputs)} have not the same bytes")


if __name__ == "__main__":
    main()
