"""The sample photographs, where they are at hand: they lie in a clone, not in an installed package."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from captioner.images import open_image

FOLDER = Path(__file__).resolve().parents[2] / "data" / "samples"
_SIDE = 160  # pixels

# What data/samples/README.md says that they show.
_SHOWN = {
    "astronaut": "an astronaut",
    "cat": "the face of a cat",
    "coffee": "a cup of coffee",
    "dogs": "two dogs at a window",
    "mountains": "a meadow before mountains",
    "pagoda": "a pagoda above a lake",
    "photographer": "a man with a camera",
    "tulips": "a field of tulips",
}


@dataclass(frozen=True)
class Sample:
    """A photograph to click.

    Attributes:
        path: the file.
        alt: what it shows.
        thumbnail: a small JPEG as ``data:`` address.
    """

    path: Path
    alt: str
    thumbnail: str


def find_samples(folder: Path = FOLDER) -> dict[str, Sample]:
    """Samples by name; empty where there are none."""
    found = {}
    for path in sorted(folder.glob("*.*")):
        if path.stem in _SHOWN and path.suffix in (".jpg", ".png"):
            found[path.stem] = Sample(path, _SHOWN[path.stem], thumbnail(path, _SIDE))
    return found


def thumbnail(source: Path | bytes, side: int) -> str:
    """A picture scaled to at most ``side`` pixels, as ``data:`` address.

    Raises:
        ImageError: it cannot be read.
    """
    # Asked for a quarter of the side, since the reader keeps four times what it is asked for.
    picture = open_image(source, min_size=-(-side // 4))
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def sample_buttons(samples: Mapping[str, Sample]) -> str:
    """The samples as a row of buttons."""
    buttons = "".join(
        f'<li><button type="button" data-sample="{escape(name)}">'
        f'<img src="{sample.thumbnail}" alt="Sample: {escape(sample.alt)}"></button></li>'
        for name, sample in samples.items()
    )
    return f'<h2>Or try one of these</h2><ul class="samples">{buttons}</ul>'
