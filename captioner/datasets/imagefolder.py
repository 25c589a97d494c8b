"""Hugging Face's ImageFolder: ``metadata.csv``, ``.jsonl`` or ``.parquet`` beside the images that it names.

Its column ``file_name``, or one such as ``image_file_name``, is a path from its own folder; ``text``, ``caption`` or
the column that the options name has the caption, in JSON lines and Parquet perhaps a list of them, and ``caption_0``
and so on are further ones. Folders called ``train``, ``validation`` and ``test`` are splits.
huggingface.co/docs/datasets/image_dataset
"""

import os
from collections.abc import Iterator
from pathlib import Path

from captioner.datasets.options import Source
from captioner.datasets.records import Record, placed, split_of_folders
from captioner.datasets.table import caption_columns, captions_in, csv_rows, json_rows
from captioner.errors import DatasetError, NoDatasetError, needing

_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def read(source: Source, split: str) -> list[Record]:
    """Records of one split in the order in which images first appear; the id is the path below the folder.

    Raises:
        DatasetError: there is no such file, it cannot be read, or it has no column of captions.
    """
    place = source.captions_place()
    found = (file for name in _NAMES for file in place.glob(f"**/{name}"))
    files = [place] if place.is_file() else sorted(filter(Path.is_file, found))
    if not files:
        raise NoDatasetError(f"{place}: holds no {', '.join(_NAMES)}")
    root = source.images or (place.parent if place.is_file() else place)
    images: dict[str, tuple[Path, list[str]]] = {}
    for file in files:
        below = file.parent.relative_to(place) if place.is_dir() else Path()
        for name, texts in _rows(file, source):
            name, path = placed(root, os.fspath(below / name), place)
            images.setdefault(name, (path, []))[1].extend(texts)
    records = [Record(name, path, tuple(texts), split_of_folders(name)) for name, (path, texts) in images.items()]
    return source.divide(records, split)


def _rows(file: Path, source: Source) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The image and the captions of each row; damaged rows are noted and left out."""
    complete = False
    for place, row in _raw_rows(file):
        where, named = f"{file}: {place}", source.caption_column
        columns = caption_columns(row, named)
        name = next((row[column] for column in row if column == "file_name" or column.endswith("_file_name")), None)
        if not complete and (not columns or name is None):
            what = f"{where} has no 'file_name' or no '{named or 'text'}' (found: {', '.join(row)})"
            raise DatasetError(what, "name the column of captions with `caption_column`")
        complete, texts = True, captions_in(row, columns, where)
        if not isinstance(name, str) or not name or texts is None:
            source.damage.append(f"{where} lacks a text as its 'file_name' or as its caption")
        else:
            yield name, texts


def _raw_rows(file: Path) -> Iterator[tuple[str, dict[str, object]]]:
    if file.suffix == ".jsonl":
        yield from json_rows(file)
    elif file.suffix == ".csv":
        yield from csv_rows(file)
    else:
        with needing(str(file)):
            from pyarrow import ArrowException, parquet
        try:
            for number, row in enumerate(parquet.read_table(file).to_pylist(), start=1):
                yield f"row {number}", {str(column).lower(): value for column, value in row.items()}
        except (ArrowException, OSError) as error:
            raise DatasetError(f"{file}: is no Parquet file that can be read ({error})") from error
