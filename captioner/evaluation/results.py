"""Results files in COCO's format: ``[{"image_id": 139, "caption": "a man in a room"}, ...]``.

Where a data set names its photos instead of numbering them (Flickr8k), ``image_id`` is that name as text;
everything here reads it back, while the COCO server takes numbers only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.datasets.reading import read_json
from captioner.errors import EvaluationError
from captioner.files import write_atomically
from captioner.metrics.matching import name_some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from captioner.datasets.records import ImageId


def write_results(path: str | Path, captions: Mapping[ImageId, str]) -> None:
    """Writes one caption for each photo.

    Raises:
        CaptionerError: the file cannot be written.
    """
    write_records(
        path, [{"image_id": image_id, "caption": caption} for image_id, caption in captions.items()]
    )


def write_records(path: str | Path, records: Iterable[Mapping[str, object]]) -> None:
    """Writes one line of JSON for each photo, all together a list.

    Raises:
        CaptionerError: the file cannot be written.
    """
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    # half a character, which JSON may hold and UTF-8 may not, becomes an escape of JSON
    write_atomically(path, f"[\n{lines}\n]\n".encode("utf-8", "backslashreplace"))


def read_results(path: str | Path) -> dict[ImageId, str]:
    """Reads a results file.

    Raises:
        EvaluationError: the file is no results file, or a photo has two captions.
        DatasetError: the file is absent, empty or not valid JSON.
    """
    entries = _entries(Path(path))
    captions: dict[ImageId, str] = {}
    twice: dict[ImageId, None] = {}
    for position, entry in enumerate(entries):
        image_id, caption = _checked(entry, f"{path}: entry {position}")
        if image_id in captions:
            twice[image_id] = None
        captions[image_id] = caption
    if twice:
        raise EvaluationError(f"{path}: {len(twice)} photos have more than one caption: {name_some(twice)}")
    return captions


def _entries(path: Path) -> list[Any]:
    contents = read_json(path)
    match contents:
        case []:
            raise EvaluationError(f"{path}: holds no captions")
        case {"annotations": _} | {"images": _}:
            raise EvaluationError(f"{path}: an annotations file, not results", "give it as `annotations`")
        case [*entries]:
            return entries
    raise EvaluationError(f"{path}: not a results file (a list of image_id and caption is expected)")


def _checked(entry: Any, where: str) -> tuple[ImageId, str]:
    if not isinstance(entry, dict) or not {"image_id", "caption"} <= entry.keys():
        raise EvaluationError(f"{where} is not an object with 'image_id' and 'caption'")
    image_id, caption = entry["image_id"], entry["caption"]
    if type(image_id) not in (int, str):
        raise EvaluationError(f"{where}: image_id must be a whole number or a file name, not {image_id!r}")
    if not isinstance(caption, str):
        raise EvaluationError(f"{where}: the caption of {image_id!r} must be a text, not {caption!r}")
    return image_id, caption
