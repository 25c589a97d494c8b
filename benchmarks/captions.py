"""Does this build write the same captions as an earlier one, and as good ones?

    python benchmarks/captions.py --dataset flickr8k --data DIR --split dev
    python benchmarks/captions.py --dataset coco --images val2017 --annotations captions_val2017.json
                                  [--limit N] [--runtime NAME] [--precision NAME] [--weights FILE] [--old COMMIT]

Captions the images of a data set that are on disk with ``captioner evaluate`` of both builds. Prints the share of
equal captions, some that differ, and the scores of both with their difference, as ``captioner compare`` does. The rule
against naming one thing twice is switched off, since earlier builds do not have it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from builds import add_new, add_old, both_builds, flags

SHOWN = 5  # captions that differ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True)
    for place in ("data", "images", "annotations"):
        parser.add_argument(f"--{place}", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--weights", type=Path, help="checkpoint for both builds (default: the one shipped with each)")
    add_new(parser)
    add_old(parser)
    args = parser.parse_args()

    places = flags(data=args.data, images=args.images, annotations=args.annotations, split=args.split)
    dataset = ["--dataset", args.dataset, *places]
    model = flags(limit=args.limit, weights=args.weights)
    of_new = [*flags(runtime=args.runtime, precision=args.precision), "--no-no-repeat-thing"]
    with both_builds(args.old) as builds, tempfile.TemporaryDirectory() as folder:
        results, captions = [], []
        for build in builds:
            output = Path(folder) / f"{build.name}.json"
            options = ["--skip-missing", "--bootstrap", "0", "--output", output]
            options += of_new if build.name == "new" else []
            build.read("-m", "captioner", "evaluate", *dataset, *model, *options)
            results.append(output)
            entries = json.loads(output.read_text(encoding="utf-8"))
            captions.append({entry["image_id"]: entry["caption"] for entry in entries})
        old, new = captions
        differing = [name for name, caption in new.items() if old[name] != caption]
        share = 100 * (1 - len(differing) / len(new))
        print(f"equal captions: {len(new) - len(differing)} of {len(new)} ({share:.1f} %)")
        for name in differing[:SHOWN]:
            print(f"    {name}\n        old: {old[name]}\n        new: {new[name]}")
        # Both are scored by one build, so that only the captions differ.
        table, _ = builds[1].read("-m", "captioner", "compare", *results, *dataset, "--subset", "--top", "0")
        print(table.partition("\nA: ")[0])  # without what it was made of


if __name__ == "__main__":
    main()
