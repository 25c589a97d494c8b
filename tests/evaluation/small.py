"""A small evaluation: six images of one colour each, human captions, and a captioner that sees the colour."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from captioner.decoding.options import DecodingOptions
from captioner.images import open_image

COLOURS = {"red": 0, "green": 1, "blue": 2}
REFERENCES = {
    10 * (number + 1): [f"A {colour} square on a wall.", f"The {colour} picture", f"a {colour}, flat square"]
    for number, colour in enumerate([*COLOURS, *COLOURS])
}
CAPTIONS = {number: f"a {texts[1].split()[1]} square on the wall" for number, texts in REFERENCES.items()}


def write_coco(folder: Path) -> Path:
    """Writes images and annotations in the layout of COCO and returns the annotations file."""
    images = folder / "val2017"
    images.mkdir(parents=True)
    for number, texts in REFERENCES.items():
        rgb = [0, 0, 0]
        rgb[COLOURS[texts[1].split()[1]]] = 255
        Image.new("RGB", (40, 30), tuple(rgb)).save(images / f"{number:012}.png")
    file = folder / "captions_val2017.json"
    file.write_text(json.dumps(annotations()), encoding="utf-8")
    return file


def annotations() -> dict[str, Any]:
    """The contents of a COCO caption file."""
    images = [{"id": number, "file_name": f"{number:012}.png"} for number in REFERENCES]
    entries = [{"image_id": number, "caption": text} for number, texts in REFERENCES.items() for text in texts]
    return {
        "info": {},
        "licenses": [],
        "images": images,
        "annotations": [{"id": place, **entry} for place, entry in enumerate(entries)],
    }


def write_results_file(path: Path, captions: dict[Any, str]) -> Path:
    path.write_text(json.dumps([{"image_id": i, "caption": c} for i, c in captions.items()]), encoding="utf-8")
    return path


@dataclass(frozen=True)
class ColourCaption:
    text: str


@dataclass
class ColourCaptioner:
    """Stands in for a Captioner: the same methods, and a caption that depends on the image alone."""

    options: DecodingOptions = field(default_factory=DecodingOptions)
    digest: str = "0123456789abcdef"
    precision: str = "bf16"
    notice: str = ""
    batches: list[int] = field(default_factory=list)
    decoded: list[DecodingOptions | None] = field(default_factory=list)

    def preprocess(self, source: Path) -> np.ndarray:
        return np.asarray(open_image(source))

    def caption(
        self, images: list[np.ndarray], options: DecodingOptions | None = None, *, attention: bool = True
    ) -> list[list[ColourCaption]]:
        assert not attention  # which costs time, and nobody here looks at
        self.batches.append(len(images))
        self.decoded.append(options)
        names = [list(COLOURS)[int(image.mean(axis=(0, 1)).argmax())] for image in images]
        return [[ColourCaption(f"a {name} square on the wall"), ColourCaption("worse")] for name in names]
