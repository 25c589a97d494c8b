"""A network that says which colour an image has, so that a caption on a wrong image is seen at once."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from captioner.bulk.run import Model
from captioner.decoding.options import DecodingOptions
from tests.small_model import small_preprocessing

SEEN: list[str] = []
"""What every network has looked at, in order; to be cleared by whoever asks."""


class ColourEngine:
    """Stands in for :class:`captioner.engine.Engine`."""

    threads = 2

    def __init__(self, captioner: object, options: object) -> None:
        pass

    def __enter__(self) -> ColourEngine:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, pixels: list[np.ndarray[Any, Any]]) -> list[Future[list[list[Any]]]]:
        # Two parts, as the real one has for large batches, the later of which is ready first.
        parts = [pixels[:2], pixels[2:]] if len(pixels) > 2 else [pixels]
        futures: list[Future[list[list[Any]]]] = [Future() for _ in parts]
        for future, part in reversed(list(zip(futures, parts, strict=True))):
            future.set_result([[SimpleNamespace(text=name_of(each), log_prob=-1.0, confidence=None)] for each in part])
        SEEN.extend(name_of(each) for each in pixels)
        return futures


def name_of(pixels: np.ndarray[Any, Any]) -> str:
    return "colour " + " ".join(map(str, pixels[0, 0]))


def save_colour(path: Path, number: int) -> str:
    """An image of one colour; returns its caption."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_colour(number).save(path, "PNG")
    return caption_of(number)


def draw_colour(number: int) -> Image.Image:
    return Image.new("RGB", (5, 4), _colour(number))


def caption_of(number: int) -> str:
    return "colour " + " ".join(map(str, _colour(number)))


def _colour(number: int) -> tuple[int, int, int]:
    return number % 256, number // 256, 7


def colour_model(**settings: object) -> Model:
    captioner: Any = SimpleNamespace(preprocessing=small_preprocessing())
    return Model({"weights": "colours", **settings}, DecodingOptions(), lambda: captioner)
