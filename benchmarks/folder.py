"""How fast is captioning a folder, compared with its encoder alone, and does memory grow?

    python benchmarks/folder.py [--weights FILE] [--images 5000] [--batch-size 16] [--beam-size 3]
                                [--workers N] [--folder DIR]

Makes a folder of different JPEGs of 640 x 480 pixels from the sample images, captions it through
``captioner caption`` without its command line, and prints in one run

(a) images/s end to end, from the first file read to the last record on the disk,
(b) images/s of the encoder alone on tensors in memory, same batch size and precision, measured before and
    after (a),
(c) the ratio (a) / (b),
(d) resident memory of all processes after a fifth of the images and after all,

and what the rest is spent on: the time that one image takes on one processor, step by step.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance

from captioner.bulk.options import FolderOptions
from captioner.bulk.pipeline import Engine
from captioner.bulk.reading import ImageReader, default_workers
from captioner.bulk.run import Model, Progress, caption_folder
from captioner.captioner import Captioner
from captioner.decoding.options import DecodingOptions
from captioner.images import DEFAULT_MAX_PIXELS
from captioner.images.find import find_images

SIZE = (640, 480)
SAMPLES = Path(__file__).parents[1] / "data" / "samples"
ENCODED = 320  # images, in each of the two measurements of the encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="checkpoint (default: the shipped one)")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--beam-size", type=int, default=3)
    parser.add_argument("--workers", type=int, help="processes that read images")
    parser.add_argument("--folder", help="keep the images here, for another run")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        images = Path(args.folder or temporary) / "images"
        make_images(images, args.images)
        captioner = Captioner.load(args.weights)
        decoding = DecodingOptions(beam_size=args.beam_size)
        workers = default_workers() if args.workers is None else args.workers
        print(
            f"{args.images:,} JPEGs of 640 x 480, batch size {args.batch_size}, beam {args.beam_size}, "
            f"{workers} reading processes, {torch.get_num_threads()} threads"
        )
        before = encoder_speed(captioner, images, args.batch_size)
        memory = Memory(marks=(args.images // 5, args.images))
        options = FolderOptions(
            output=str(Path(temporary) / "captions.jsonl"), workers=workers, batch_size=args.batch_size
        )
        model = Model({"weights": captioner.digest}, decoding, lambda: captioner)
        summary = caption_folder([str(images)], options, model, memory)
        after = encoder_speed(captioner, images, args.batch_size)
        assert summary.captioned == args.images
        folder, encoder = summary.captioned / summary.seconds, (before + after) / 2
        print(f"(a) folder, end to end: {folder:.1f} images/s")
        print(f"(b) encoder alone: {encoder:.1f} images/s (before {before:.1f}, after {after:.1f})")
        print(f"(c) ratio: {folder / encoder:.2f}")
        (few, first), (many, last) = memory.found.items()
        print(f"(d) resident memory: {first:.0f} MB after {few:,}, {last:.0f} MB after {many:,} images")
        print_steps(captioner, decoding, images)


def make_images(folder: Path, count: int) -> None:
    """Different JPEGs from the samples: another part, mirrored or not, brighter or darker."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = [Image.open(path).convert("RGB") for path in find_images([SAMPLES])]
    chance = np.random.default_rng(0)
    for number, sample in zip(range(count), itertools.cycle(samples), strict=False):
        path = folder / f"{number // 1000}" / f"{number}.jpg"  # several folders, as in life
        if path.exists():
            continue
        path.parent.mkdir(exist_ok=True)
        share = chance.uniform(0.6, 1.0)
        width, height = (round(side * share) for side in sample.size)
        left, top = (int(chance.integers(0, room + 1)) for room in (sample.width - width, sample.height - height))
        image = sample.resize(SIZE, box=(left, top, left + width, top + height))
        if chance.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        ImageEnhance.Brightness(image).enhance(chance.uniform(0.7, 1.3)).save(path, quality=90)


@torch.inference_mode()
def encoder_speed(captioner: Captioner, folder: Path, batch_size: int) -> float:
    """Images/s of the encoder alone on batches in memory."""
    paths = list(itertools.islice(find_images([folder]), batch_size))
    pixels = np.stack([captioner.preprocess(path) for path in paths])
    images = torch.from_numpy(pixels).to(captioner.device)
    captioner.encoder(images, captioner.dtype)
    rounds = max(1, ENCODED // len(images))
    start = time.perf_counter()
    for _ in range(rounds):
        # Fetched, so that an accelerator has finished.
        captioner.encoder(images, captioner.dtype)[..., 0].sum().item()
    return rounds * len(images) / (time.perf_counter() - start)


class Memory(Progress):
    """Notes the resident memory of this process and its children when so many images are done."""

    def __init__(self, marks: tuple[int, ...]) -> None:
        super().__init__()
        self.marks, self.done, self.found = marks, 0, {}

    def advance(self, images: int) -> None:
        """Some more are done."""
        super().advance(images)
        self.done += images
        for mark in self.marks:
            if self.done >= mark and mark not in self.found:
                self.found[mark] = resident_memory()


def resident_memory() -> float:
    """Of this process and its children, in MB."""
    own = Path("/proc/self/stat").read_text().split()[0]
    pages = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            if own in (stat.parent.name, fields[1]):
                pages += int(fields[21])
    return pages * resource.getpagesize() / 1e6


def print_steps(captioner: Captioner, decoding: DecodingOptions, folder: Path) -> None:
    """What each step takes on one processor."""
    paths = list(itertools.islice(find_images([folder]), 64))
    reader = ImageReader(captioner.preprocessing, DEFAULT_MAX_PIXELS)
    pixels = [loaded.pixels for loaded in map(reader, paths) if loaded.pixels is not None]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    engine = Engine(captioner, decoding)
    regions = torch.cat([engine.see([each]) for each in pixels[:16]])
    seeds = captioner.seeds(pixels[:16], decoding)
    steps: dict[str, Callable[[], object]] = {
        "reading and resizing": lambda: [reader(path) for path in paths[:16]],
        "encoding": lambda: [engine.see([each]) for each in pixels[:16]],
        "writing the caption": lambda: engine.write(regions, seeds),
    }
    print("milliseconds an image on one processor:")
    for name, step in steps.items():
        seconds = min(timed(step) for _ in range(5))
        print(f"    {name}: {1000 * seconds / 16:.1f}")
    torch.set_num_threads(threads)


def timed(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
