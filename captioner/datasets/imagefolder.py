"""Hugging Face's ImageFolder: ``metadata.csv``, ``.jsonl`` or ``.parquet`` beside the images that it names.

Its column ``file_name`` is a path from its own folder; ``text``, ``caption`` or the column that the options name has
the caption, in JSON lines and Parquet perhaps a list of them, and ``caption_0`` and so on are further ones. Folders
called ``train``, ``validation`` and ``test`` are splits. huggingface.co/docs/datasets/image_dataset
"""

import re
from collections.abc import Iterator
from pathlib import Path

from captioner.datasets.options import Source
from captioner.datasets.records import Record, cell_texts, inside, split_of_folders, spoken
from captioner.datasets.table import csv_rows, json_rows
from captioner.errors import DatasetError, NoDatasetError, needing

_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_TEXT = re.compile(r"(?:text|caption)s?(?:_?\d+)?")


def read(source: Source, split: str) -> list[Record]:
    """Records of one split in the order in which images first appear; the id is the path below the folder.

    Raises:
        DatasetError: there is no such file, it cannot be read, or it has no column of captions.
    """
    place = source.captions_place()
    files = [place] if place.is_file() else sorted(file for name in _NAMES for file in place.glob(f"**/{name}"))
    if not files:
        raise NoDatasetError(f"{place}: holds no {', '.join(_NAMES)}")
    root = source.images or (place.parent if place.is_file() else place)
    captions: dict[str, list[str]] = {}
    for file in files:
        below = file.parent.relative_to(place) if place.is_dir() else Path()
        for name, texts in _rows(file, source):
            captions.setdefault((below / name).as_posix(), []).extend(texts)
    records = [
        Record(name, inside(root, name, place), spoken(texts), split_of_folders(name))
        for name, texts in captions.items()
    ]
    return source.divide(records, split)


def _rows(file: Path, source: Source) -> Iterator[tuple[str, list[str]]]:
    """The image and the captions of each row; damaged rows are noted and left out."""
    named = source.caption_column
    if named and file.suffix == ".csv":
        named = named.lower()  # as the reader of tables gives the names of columns
    complete = False
    for number, row in _raw_rows(file):
        where = f"{file}: {'row' if file.suffix == '.parquet' else 'line'} {number}"
        columns = [named] if named else [name for name in row if _TEXT.fullmatch(name)]
        if not columns or "file_name" not in row or columns[0] not in row:
            if complete:
                source.damage.append(f"{where} lacks its 'file_name' or its caption")
                continue
            what = f"{where} has no 'file_name' or no '{named or 'text'}' (found: {', '.join(map(str, row))})"
            raise DatasetError(what, "name the column of captions with `caption_column`")
        complete = True
        values: list[object] = []
        for value in (row[column] for column in columns):
            cell = cell_texts(value, where) if isinstance(value, str) else value
            values.extend(cell if isinstance(cell, list | tuple) else [cell])
        texts = [value for value in values if isinstance(value, str)]
        name = row["file_name"]
        if not isinstance(name, str) or not name or len(texts) < len(values):
            source.damage.append(f"{where} lacks a text as its 'file_name' or as its caption")
        else:
            yield name, texts


def _raw_rows(file: Path) -> Iterator[tuple[int, dict[str, object]]]:
    if file.suffix == ".jsonl":
        yield from json_rows(file)
    elif file.suffix == ".csv":
        yield from csv_rows(file, {"file_name"})
    else:
        with needing(str(file)):
            from pyarrow import ArrowException, parquet
        try:
            yield from enumerate(parquet.read_table(file).to_pylist(), start=1)
        except (ArrowException, OSError) as error:
            raise DatasetError(f"{file}: is no Parquet file that can be read ({error})") from error
