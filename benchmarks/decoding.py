"""How much faster is beam search over a batch of images than over one image at a time?

    python benchmarks/decoding.py [--weights FILE] [--images 32] [--beam-size 3]

Encodes random images once, then times the decoder alone both ways in turn, and prints the ratio of the
fastest rounds. The captions of both ways are compared as well. The batch is also written with consensus, for
which a search must finish as many captions as the beam.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from captioner.captioner import Captioner
from captioner.decoding.options import DecodingOptions

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="checkpoint (default: the shipped one)")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--beam-size", type=int, default=3)
    args = parser.parse_args()

    captioner = Captioner.load(args.weights)
    options = DecodingOptions(beam_size=args.beam_size)
    size = captioner.preprocessing.size
    noise = np.random.default_rng(0).integers(0, 256, (args.images, 4, 4, 3), dtype=np.uint8)
    # Blocks of colour, enlarged: images that differ, so that captions end at different lengths.
    pixels = [np.kron(block, np.ones((size // 4 + 1,) * 2 + (1,), np.uint8))[:size, :size] for block in noise]
    regions = captioner.encode(pixels)

    batched, single, agreed = [], [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        together = captioner.decode(regions, options)
        batched.append(time.perf_counter() - start)
        start = time.perf_counter()
        alone = [captioner.decode(regions[i : i + 1], options)[0] for i in range(args.images)]
        single.append(time.perf_counter() - start)
        start = time.perf_counter()
        captioner.decode(regions, replace(options, consensus=True))
        agreed.append(time.perf_counter() - start)
    same = sum(a[0].text == b[0].text for a, b in zip(together, alone, strict=True))
    print(f"one batch of {args.images} images, beam {args.beam_size}: {min(batched):.3f} s")
    print(f"one image at a time: {min(single):.3f} s")
    print(f"equal captions: {same} of {args.images}")
    print(f"ratio: {min(single) / min(batched):.1f}")
    print(f"with consensus: {min(agreed):.3f} s, ratio {min(agreed) / min(batched):.2f}")


if __name__ == "__main__":
    main()
