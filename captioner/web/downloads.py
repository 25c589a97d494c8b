"""An album as a file: CSV, JSON Lines, COCO results, or a zip of one text file a picture."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

from captioner.web.many import Item

_COCO_NAME = re.compile(r"(?:COCO_\w+_)?0*(\d{1,12})")


class Download(NamedTuple):
    """A file to save.

    Attributes:
        name: what it is called.
        kind: media type.
        data: its bytes.
    """

    name: str
    kind: str
    data: bytes


def as_csv(items: Sequence[Item]) -> Download:
    """Columns ``image`` and ``caption``, as ``captioner train`` reads them; broken pictures are left out."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("image", "caption"))
    writer.writerows((item.name, item.caption) for item in items if item.error is None)
    return Download("captions.csv", "text/csv", text.getvalue().encode())


def as_jsonl(items: Sequence[Item]) -> Download:
    """One record a line, as ``captioner caption --format jsonl`` writes them, errors included."""
    lines = "".join(json.dumps(_record(item), ensure_ascii=False) + "\n" for item in items)
    return Download("captions.jsonl", "application/jsonl", lines.encode())


def _record(item: Item) -> dict[str, object]:
    if item.error is not None:
        return {"image": item.name, "error": item.error}
    record: dict[str, object] = {"image": item.name, "caption": item.caption}
    if item.log_prob is None:  # the number would be that of another sentence
        return record | {"edited": True}
    return record | {"log_prob": item.log_prob}


def as_coco(items: Sequence[Item]) -> Download:
    """COCO results. Ids are the numbers in the names if all names are COCO's, or else count from 1."""
    captioned = [item for item in items if item.error is None]
    matches = [_COCO_NAME.fullmatch(_stem(item.name).rpartition("/")[2]) for item in captioned]
    ids = [int(match[1]) for match in matches if match]
    if len(set(ids)) < len(captioned):
        ids = list(range(1, len(captioned) + 1))
    records = [
        {"image_id": image_id, "caption": item.caption, "file_name": item.name}
        for image_id, item in zip(ids, captioned, strict=True)
    ]
    text = json.dumps(records, ensure_ascii=False, indent=1) + "\n"
    return Download("captions.json", "application/json", text.encode())


def as_sidecars(items: Sequence[Item]) -> Download:
    """A zip with ``photo.txt`` for ``photo.jpg``; of two with one name the second gets a number."""
    buffer = io.BytesIO()
    taken: set[str] = set()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in items:
            if item.error is not None:
                continue
            stem = _stem(item.name)
            name, number = f"{stem}.txt", 2
            while name in taken:
                name, number = f"{stem} ({number}).txt", number + 1
            taken.add(name)
            archive.writestr(name, item.caption + "\n")
    return Download("captions.zip", "application/zip", buffer.getvalue())


def _stem(name: str) -> str:
    """A name without its extension; names of visitors may be anything, so :mod:`pathlib` would stumble."""
    before, dot, _ = name.rpartition(".")
    return before if dot and not before.endswith("/") and before else name


FORMATS: dict[str, Callable[[Sequence[Item]], Download]] = {
    "CSV": as_csv,
    "JSON Lines": as_jsonl,
    "COCO JSON": as_coco,
    "Text files (zip)": as_sidecars,
}
"""Formats by the name that a visitor reads."""
