"""Does a GPU write the same captions as the processor, and how fast is it?

    python benchmarks/gpu.py [IMAGES] [--limit 200] [--device cuda] [--batch-size 16] [--weights FILE]

Needs torch. Captions the images of a folder (default: made from the samples) with torch on the processor in
float32, and on the GPU with the encoder in float32 and in bfloat16. Prints for each images/s, reading left out, and
the share of captions equal to the processor's. ``--device cpu`` shows what bfloat16 does on the processor: where
that has no arithmetic for it, it is far slower than float32, and ``--precision auto`` uses float32 everywhere.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path

import torch
from jpegs import make_images

import captioner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="?", help="folder")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--weights", help="checkpoint (default: the shipped one)")
    args = parser.parse_args()

    if args.device.startswith("cuda"):
        if not torch.cuda.is_available():
            print("no GPU")
            return
        print(torch.cuda.get_device_name(args.device))
    with tempfile.TemporaryDirectory() as temporary:
        if args.images is None:
            make_images(Path(temporary), args.limit)
        found = list(islice(captioner.find_images([args.images or temporary]), args.limit))
        model = captioner.load(args.weights, runtime="torch", device="cpu")
        pixels = [model.preprocess(path) for path in found]
    batches = [pixels[start : start + args.batch_size] for start in range(0, len(pixels), args.batch_size)]
    expected, rate = write(model, batches)
    print(f"cpu fp32: {rate:.1f} images/s")
    for precision in ("fp32", "bf16"):
        model = captioner.load(args.weights, runtime="torch", device=args.device, precision=precision)
        captions, rate = write(model, batches)
        equal = sum(a == b for a, b in zip(captions, expected, strict=True))
        share = 100 * equal / len(pixels)
        print(
            f"{args.device} {precision}: {rate:.1f} images/s, {equal} of {len(pixels)} captions equal ({share:.1f} %)"
        )


def write(model: captioner.Captioner, batches: list[list[object]]) -> tuple[list[str], float]:
    """The best caption of each image, and images/s."""
    model.caption(batches[0], attention=False)  # to warm up
    start = time.perf_counter()
    captions = [best.text for batch in batches for best, *_ in model.caption(batch, attention=False)]
    return captions, len(captions) / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
