"""People's own images: a CSV or JSONL table with one row a caption, or with a list of captions in a row.

Columns ``image`` and ``caption``; optionally ``split`` and ``image_id`` (whole numbers). Other columns are
ignored. Without a ``split`` column a seeded share of the images is held out for validation.
"""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from captioner.datasets.options import Source
from captioner.datasets.records import ALL, SPLIT_NAMES, ImageId, Record, cell_texts, held_out, inside, open_text
from captioner.errors import DatasetError

_PATTERNS = ("captions.csv", "captions.jsonl", "*.csv", "*.jsonl")
_COLUMNS = {"image", "caption"}
_DELIMITERS = ",;\t"
JSONL_SUFFIXES = (".jsonl", ".ndjson")


@dataclass
class _Image:
    """What the rows of one image say."""

    split: str | None
    image_id: ImageId
    captions: list[str] = field(default_factory=list)


def read(source: Source, split: str) -> list[Record]:
    """Records of one split in the order in which images first appear; rows of one image are joined.

    Raises:
        DatasetError: for a table that is absent, malformed, lacks a column, or contradicts itself.
    """
    file = source.annotations_file(_PATTERNS)
    folder = source.image_folder(file)
    images = _images(file, folder)
    undivided = [name for name, image in images.items() if image.split is None and image.captions]
    held_back = held_out(undivided, source.holdout, source.holdout_seed)
    records = []
    for name, image in images.items():
        own = image.split or ("val" if name in held_back else "train")
        if image.captions and split in (own, ALL):
            records.append(Record(image.image_id, folder / name, tuple(image.captions), own))
    return records


def _images(file: Path, folder: Path) -> dict[str, _Image]:
    rows = json_rows(file) if file.suffix.lower() in JSONL_SUFFIXES else csv_rows(file, _COLUMNS)
    images: dict[str, _Image] = {}
    owners: dict[ImageId, str] = {}
    for line, row in rows:
        where = f"{file}: line {line}"
        name, caption = row.get("image"), row.get("caption")
        if not isinstance(name, str) or not name or not isinstance(caption, str):
            raise DatasetError(f"{where} lacks a text 'image' or a text 'caption'")
        path = inside(folder, name, file)
        if "/" in name or os.sep in name:  # one image has one name, however it is spelled: ./a.jpg is a.jpg
            name = os.path.relpath(path, folder)
        split = _split(row["split"], where) if "split" in row else None
        image_id = _image_id(row["image_id"], where) if "image_id" in row else name
        image = images.setdefault(name, _Image(split, image_id))
        if (image.split, image.image_id) != (split, image_id):
            raise DatasetError(f"{where} gives {name} another split or image_id than an earlier line")
        if owners.setdefault(image_id, name) != name:
            raise DatasetError(f"{where} gives {name} the image_id {image_id} of {owners[image_id]}")
        image.captions.extend(cell_texts(caption, where))
    return images


def _split(value: object, where: str) -> str:
    if not isinstance(value, str) or value.strip().lower() not in SPLIT_NAMES:
        raise DatasetError(f"{where} has the unknown split {value!r}", f"known are {', '.join(SPLIT_NAMES)}")
    return SPLIT_NAMES[value.strip().lower()]


def _image_id(value: object, where: str) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise DatasetError(f"{where} has the image_id {value!r}, which is not a whole number")


def json_rows(file: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Number of the line and object of each line that is not empty.

    Raises:
        DatasetError: the file cannot be read, or a line is no JSON object.
    """
    with open_text(file) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{file}: line {number} is not valid JSON ({error})") from error
            if not isinstance(row, dict):
                raise DatasetError(f"{file}: line {number} is not a JSON object")
            yield number, row


def csv_rows(file: Path, needed: set[str]) -> Iterator[tuple[int, dict[str, object]]]:
    """Number of the line and columns by their names, in lower case, of each row.

    Raises:
        DatasetError: the file cannot be read, is no valid CSV, or lacks a needed column.
    """
    with open_text(file) as lines:
        first = lines.readline()
        delimiter = max(_DELIMITERS, key=first.count)
        lines.seek(0)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] = []
        try:
            for fields in rows:
                if not fields:
                    continue
                if not header:
                    header = _header(fields, file, needed)
                elif len(fields) != len(header):
                    raise DatasetError(
                        f"{file}: line {rows.line_num} has {len(fields)} fields, the header {len(header)}",
                        f"put captions that contain {delimiter!r} between double quotes",
                    )
                else:
                    yield rows.line_num, dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise DatasetError(f"{file}: line {rows.line_num} is not valid CSV ({error})") from error


def _header(fields: list[str], file: Path, needed: set[str]) -> list[str]:
    header = [name.strip().lower() for name in fields]
    if len(set(header)) < len(header):
        raise DatasetError(f"{file}: two columns have the same name (found: {', '.join(fields)})")
    if not needed <= set(header):
        names = " and ".join(f"'{name}'" for name in sorted(needed, reverse=True))
        raise DatasetError(f"{file}: the columns {names} are needed (found: {', '.join(fields)})")
    return header
