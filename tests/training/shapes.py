"""Tiny data sets: coloured shapes on a plain ground, which even a tiny model can tell apart."""

from __future__ import annotations

import csv
import itertools
import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("square", "circle")
SIDE = 64


def draw(path: Path, colour: str, shape: str, seed: int) -> None:
    """One shape; the seed moves it and changes its size a little."""
    chance = random.Random(seed)
    image = Image.new("RGB", (SIDE, SIDE), "white")
    left, top, side = chance.randint(4, 16), chance.randint(4, 16), chance.randint(28, 40)
    box = (left, top, left + side, top + side)
    pen = ImageDraw.Draw(image)
    (pen.rectangle if shape == "square" else pen.ellipse)(box, fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def captions(colour: str, shape: str) -> list[str]:
    return [f"A {colour} {shape} on a white ground.", f"There is a {colour} {shape} on the white ground."]


def drawings(count: int, first_seed: int = 0) -> list[tuple[str, str, str, int]]:
    """``count`` images in turn of every kind: file name, colour, shape, seed."""
    kinds = itertools.cycle(itertools.product(COLOURS, SHAPES))
    return [
        (f"{colour}-{shape}-{seed}.png", colour, shape, seed)
        for seed, (colour, shape) in zip(range(first_seed, first_seed + count), kinds, strict=False)
    ]


def write_table(folder: Path, train: int, val: int = 0, *, first_seed: int = 0, suffix: str = ".csv") -> Path:
    """A table; without ``val`` it has no split column."""
    rows = []
    for place, (name, colour, shape, seed) in enumerate(drawings(train + val, first_seed)):
        draw(folder / "images" / name, colour, shape, seed)
        for text in captions(colour, shape):
            split = {"split": "train" if place < train else "val"} if val else {}
            rows.append({"image": name, "caption": text, **split})
    file = folder / f"captions{suffix}"
    if suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return file


def write_flickr8k(folder: Path, train: int, val: int, *, first_seed: int = 0) -> None:
    drawn = drawings(train + val, first_seed)
    tokens = []
    for name, colour, shape, seed in drawn:
        draw(folder / "images" / name, colour, shape, seed)
        tokens += [f"{name}#{nth}\t{text}\n" for nth, text in enumerate(captions(colour, shape))]
    (folder / "Flickr8k.token.txt").write_text("".join(tokens))
    names = [f"{name}\n" for name, *_ in drawn]
    (folder / "Flickr_8k.trainImages.txt").write_text("".join(names[:train]))
    (folder / "Flickr_8k.devImages.txt").write_text("".join(names[train:]))


def write_karpathy(folder: Path, train: int, val: int, *, first_seed: int = 0) -> None:
    images = []
    for place, (name, colour, shape, seed) in enumerate(drawings(train + val, first_seed)):
        draw(folder / "images" / name, colour, shape, seed)
        sentences = [{"raw": text} for text in captions(colour, shape)]
        split = "train" if place < train else "val"
        images.append({"filename": name, "split": split, "sentences": sentences})
    (folder / "dataset_flickr8k.json").write_text(json.dumps({"images": images, "dataset": "flickr8k"}))


def write_coco(folder: Path, train: int, val: int, *, first_seed: int = 0) -> None:
    (folder / "annotations").mkdir(parents=True)
    drawn = drawings(train + val, first_seed)
    for split, part in (("train2017", drawn[:train]), ("val2017", drawn[train:])):
        images, annotations = [], []
        for name, colour, shape, seed in part:
            draw(folder / split / name, colour, shape, seed)
            images.append({"id": seed, "file_name": name})
            annotations += [{"image_id": seed, "id": seed, "caption": text} for text in captions(colour, shape)]
        content = {"images": images, "annotations": annotations}
        (folder / "annotations" / f"captions_{split}.json").write_text(json.dumps(content))
