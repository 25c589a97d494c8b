"""Does an encoder in bfloat16 write the same captions as one in float32, and how much faster is it?

    python benchmarks/precision.py IMAGES [--weights FILE] [--limit 1000] [--batch-size 16]

Captions the images of a folder both ways and prints the share of equal captions and the ratio of the
encoder's times. Where the processor has no bfloat16 arithmetic the ratio is far below 1, and
``--precision auto`` uses float32.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice

from captioner.captioner import Captioner
from captioner.images.find import find_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help="folder of images")
    parser.add_argument("--weights", help="checkpoint (default: the shipped one)")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()

    models = {name: Captioner.load(args.weights, precision=name) for name in ("fp32", "bf16")}
    seconds, captions = dict.fromkeys(models, 0.0), {name: [] for name in models}
    paths = iter(list(islice(find_images([args.images]), args.limit)))
    while batch := list(islice(paths, args.batch_size)):
        pixels = [models["fp32"].preprocess(path) for path in batch]
        for name, model in models.items():
            start = time.perf_counter()
            regions = model.encode(pixels)
            seconds[name] += time.perf_counter() - start
            captions[name] += [best.text for best, *_ in model.decode(regions)]
    equal = sum(a == b for a, b in zip(captions["fp32"], captions["bf16"], strict=True))
    total = len(captions["fp32"])
    print(f"equal captions: {equal} of {total} ({100 * equal / total:.1f} %)")
    print(f"ratio of encoding times, fp32 / bf16: {seconds['fp32'] / seconds['bf16']:.2f}")


if __name__ == "__main__":
    main()
