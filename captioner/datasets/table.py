"""People's own images: a table as CSV, JSON lines or JSON, with one row a caption, or with several captions in a row.

Columns ``image`` and ``caption``, or other usual names; optionally ``split`` and ``image_id``. Other columns are
ignored. Without a ``split`` column a seeded share of the images is held out for validation.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from captioner.datasets.options import Source
from captioner.datasets.records import ALL, SPLIT_WORDS, ImageId, Record, cell_texts, open_text, placed, read_json
from captioner.errors import DatasetError

_PATTERNS = ("captions.csv", "captions.jsonl", "captions.tsv", "captions.json", "*.csv", "*.jsonl", "*.tsv")
_NAMES = ("image", "file_name", "filename", "image_name", "image_path", "path")
_CAPTION = re.compile(r"(?:text|caption)s?(?:_?\d+)?")
_FRACTION = re.compile(r"\d*\.\d*")
_DELIMITERS = ",;\t"
JSONL_SUFFIXES = (".jsonl", ".ndjson")


@dataclass
class _Image:
    """What the rows of one image say."""

    path: Path
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
    images = _images(file, folder, source.caption_column)
    undivided = [name for name, image in images.items() if image.split is None and image.captions]
    held_back = source.held_out(undivided)
    records = []
    numbered = all(name != image.image_id and str(image.image_id).isdecimal() for name, image in images.items())
    for name, image in images.items():
        own = image.split or ("val" if name in held_back else "train")
        if image.captions and split in (own, ALL):
            image_id = int(image.image_id) if numbered else image.image_id
            records.append(Record(image_id, image.path, tuple(image.captions), own))
    return records


def _images(file: Path, folder: Path, named: str | None) -> dict[str, _Image]:
    images: dict[str, _Image] = {}
    owners: dict[ImageId, str] = {}
    names = _NAMES[:1] if file.stem == "metadata" else _NAMES  # what else is called so is read as an ImageFolder
    for place, row in _rows(file):
        where = f"{file}: {place}"
        found = next((row[column] for column in names if column in row), None)
        columns = caption_columns(row, named or ("caption" if "caption" in row else None))
        captions = captions_in(row, columns, where)
        if not isinstance(found, str) or not found or captions is None:
            what = f"{where} lacks a text 'image' or a text '{named or 'caption'}'"
            needed = f"columns 'image' and 'caption' are needed (found: {', '.join(row)})"
            raise DatasetError(what, f"{needed}, or name that of the captions with `caption_column`")
        name, path = placed(folder, found, file)
        split = _split(row["split"], where) if "split" in row else None
        image_id = _image_id(row["image_id"], where) if "image_id" in row else name
        image = images.setdefault(name, _Image(path, split, image_id))
        if (image.split, image.image_id) != (split, image_id):
            raise DatasetError(f"{where} gives {name} another split or image_id than an earlier line")
        if owners.setdefault(image_id, name) != name:
            raise DatasetError(f"{where} gives {name} the image_id {image_id} of {owners[image_id]}")
        image.captions.extend(captions)
    return images


def _rows(file: Path) -> Iterator[tuple[str, dict[str, object]]]:
    kind = Path(file.name.lower().removesuffix(".gz")).suffix
    if kind != ".json":
        yield from json_rows(file) if kind in JSONL_SUFFIXES else csv_rows(file)
        return
    contents = read_json(file)
    if not isinstance(contents, list) or not all(isinstance(row, dict) for row in contents):
        raise DatasetError(f"{file}: not a list of objects with 'image' and 'caption'")
    yield from ((f"entry {place}", _lowered(row)) for place, row in enumerate(contents))


def caption_columns(row: Mapping[str, object], named: str | None) -> list[str]:
    """The columns with captions: the one that is named, or else all with usual names; none if they are absent."""
    return [column for column in row if (column == named.lower() if named else _CAPTION.fullmatch(column))]


def captions_in(row: Mapping[str, object], columns: Sequence[str], where: str) -> tuple[str, ...] | None:
    """What is said in some columns of a row, each a text or a list of texts; None if one holds anything else.

    Raises:
        DatasetError: a text looks like a list of texts, but is none.
    """
    cells = [cell_texts(row.get(column), where) for column in columns]
    return tuple(text for cell in cells for text in cell or ()) if cells and None not in cells else None


def _split(value: object, where: str) -> str:
    if not isinstance(value, str) or value.strip().lower() not in SPLIT_WORDS:
        raise DatasetError(f"{where} has the unknown split {value!r}", f"known are {', '.join(SPLIT_WORDS)}")
    return SPLIT_WORDS[value.strip().lower()]


def _image_id(value: object, where: str) -> ImageId:
    if isinstance(value, str) and value.strip() and not _FRACTION.fullmatch(value.strip()):
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise DatasetError(f"{where} has the image_id {value!r}, which is neither a whole number nor a name")


def json_rows(file: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Line, such as ``line 3``, and object of each line that is not empty, names of columns in lower case.

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
            yield f"line {number}", _lowered(row)


def _lowered(row: Mapping[str, object]) -> dict[str, object]:
    return {str(column).lower(): value for column, value in row.items()}


def csv_rows(file: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Line, such as ``line 3``, and columns by their names, in lower case, of each row that is not empty.

    Raises:
        DatasetError: the file cannot be read, or is no valid CSV.
    """
    with open_text(file) as lines:
        first = lines.readline()
        delimiter = max(_DELIMITERS, key=first.count)
        lines.seek(0)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] = []
        try:
            for fields in rows:
                if not any(map(str.strip, fields)):
                    continue
                if not header:
                    header = [name.strip().lower() for name in fields]
                    if len(set(header)) < len(header):
                        raise DatasetError(f"{file}: two columns have the same name (found: {', '.join(fields)})")
                elif len(fields) != len(header):
                    raise DatasetError(
                        f"{file}: line {rows.line_num} has {len(fields)} fields, the header {len(header)}",
                        f"put captions that contain {delimiter!r} between double quotes",
                    )
                else:
                    yield f"line {rows.line_num}", dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise DatasetError(f"{file}: line {rows.line_num} is not valid CSV ({error})") from error
