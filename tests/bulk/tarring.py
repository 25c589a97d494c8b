"""Tars of images of one colour each, sound and otherwise."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from captioner.bulk.options import FolderOptions
from captioner.bulk.run import Progress, Summary, caption_folder
from tests.bulk import fakes


def colour(number: int) -> bytes:
    """An image whose caption :func:`caption_of` knows."""
    path = io.BytesIO()
    fakes.draw_colour(number).save(path, "PNG")
    return path.getvalue()


def make_tar(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    """A tar of files, in this order; mode ``w:gz`` compresses it."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def samples(*numbers: int) -> list[tuple[str, bytes]]:
    """Samples as WebDataset lays them out, each with an image and what belongs to it."""
    return [
        member
        for number in numbers
        for member in (
            (f"{number:06}.jpg", colour(number)),
            (f"{number:06}.json", b"{}"),
            (f"{number:06}.mask.png", colour(number + 1)),
        )
    ]


def cut(tar: Path, at: int) -> None:
    tar.write_bytes(tar.read_bytes()[:at])


def run(*tars: str, output: str = "out.jsonl", **options: object) -> Summary:
    choices = FolderOptions(input_tar=tars, output=output, **{"workers": 0, **options})  # type: ignore[arg-type]
    return caption_folder([], choices, fakes.colour_model(), Progress())


def records(output: str = "out.jsonl") -> list[tuple[str, str]]:
    """Name, and caption or error."""
    lines = map(json.loads, Path(output).read_text().splitlines())
    return [(line["image"], line.get("caption", line.get("error"))) for line in lines]


def good(tar: str, *numbers: int) -> list[tuple[str, str]]:
    return [(f"{tar}/{number:06}.jpg", fakes.caption_of(number)) for number in numbers]
