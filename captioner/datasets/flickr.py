"""Flickr8k and Flickr30k: a file of captions, lists of the images of each split, and a folder of images.

Captions are a token file as published, or a table as on Kaggle: ``results.csv`` with ``|`` between its columns, or
``captions.txt`` with commas. Hodosh, Young and Hockenmaier 2013, JAIR 47; Young et al. 2014, TACL 2.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from captioner.datasets.options import Source
from captioner.datasets.records import ALL, Record, inside, open_text, spoken
from captioner.errors import DatasetError

_CAPTIONS = {
    "flickr8k": ("Flickr8k.token.txt", "captions.txt"),
    "flickr30k": ("results_20130124.token", "results.csv", "captions.txt"),
}
_LISTS = {
    "flickr8k": {
        own: f"Flickr_8k.{name}Images.txt" for own, name in (("train", "train"), ("val", "dev"), ("test", "test"))
    },
    "flickr30k": {own: f"{own}.txt" for own in ("train", "val", "test")},
}
_TOKEN_LINE = re.compile(r"(?P<name>[^\t]+)#(?P<number>\d+)\t(?P<caption>.*)")
# One published row lacks the second stroke: "2199200615.jpg| 4   A dog runs across the grass ."
_STROKE_LINE = re.compile(r"(?P<name>[^|]+?)\s*\|\s*\d+\s*\|?\s*(?P<caption>.*)")
_NAME_COLUMNS, _CAPTION_COLUMNS = ("image", "image_name"), ("caption", "comment")


def read(source: Source, split: str) -> list[Record]:
    """Records of one split, in the order of its list where there is one; the id is the file name.

    Captions of images in no list (``2258277193_586949ec62.jpg.1`` in some copies) are ignored. Where there are no
    lists at all, a seeded share of the images is held out.

    Raises:
        DatasetError: for a file that is absent or malformed, or an image that is listed twice.
    """
    file = source.annotations_file(_CAPTIONS[source.kind])
    images = source.image_folder(file)
    captions = _captions(source, file)
    lists = {own: file.parent / name for own, name in _LISTS[source.kind].items()}
    there = [own for own, path in lists.items() if path.is_file()]
    if there:
        wanted = there if split == ALL else [split]
        listed = [(own, image) for own in wanted for image in _listed(lists[own])]
    else:
        listed = [(ALL, image) for image in captions]
    records = [
        Record(image, inside(images, image, file), texts, own)
        for own, image in listed
        if (texts := spoken(captions.get(image, [])))
    ]
    if len({record.image_id for record in records}) < len(records):
        raise DatasetError(f"{file.parent}: an image is in two of the lists {', '.join(_LISTS[source.kind].values())}")
    return source.divide(records, split)


def _captions(source: Source, file: Path) -> dict[str, list[str]]:
    with open_text(file) as lines:
        head = lines.readline()
    captions: dict[str, list[str]] = {}
    for number, name, caption in _rows(file, head):
        if not name or not caption.strip():
            source.damage.append(f"{file}: line {number} lacks {'a caption' if name else 'the name of an image'}")
        else:
            captions.setdefault(name, []).append(caption)
    return captions


def _rows(file: Path, head: str) -> Iterator[tuple[int, str, str]]:
    """Line, image and caption of each row; what a damaged row lacks is empty."""
    if "|" in head:
        return _stroke_rows(file)
    columns = [name.strip().lower() for name in head.split(",")]
    places = [[columns.index(name) for name in names if name in columns] for names in (_NAME_COLUMNS, _CAPTION_COLUMNS)]
    if "\t" not in head and all(places):
        return _comma_rows(file, places[0][0], places[1][0])
    return _token_rows(file)


def _stroke_rows(file: Path) -> Iterator[tuple[int, str, str]]:
    with open_text(file) as lines:
        for number, line in enumerate(lines, start=1):
            if number > 1 and line.strip():
                found = _STROKE_LINE.fullmatch(line.strip())
                yield (number, found["name"], found["caption"]) if found else (number, "", "")


def _comma_rows(file: Path, name: int, caption: int) -> Iterator[tuple[int, str, str]]:
    with open_text(file) as lines:
        rows = csv.reader(lines)
        next(rows)
        for fields in rows:
            if fields:  # a caption stands last, so that commas without quotation marks belong to it
                text = ",".join(fields[caption:])
                yield rows.line_num, fields[name].strip() if name < len(fields) else "", text


def _token_rows(file: Path) -> Iterator[tuple[int, str, str]]:
    keys: set[str] = set()
    with open_text(file) as lines:
        for number, line in enumerate(lines, start=1):
            text = line.rstrip("\r\n")
            if not text:
                continue
            found = _TOKEN_LINE.fullmatch(text)
            if found is None:
                raise DatasetError(f"{file}: line {number} is not 'photo.jpg#0<TAB>caption'")
            key = text[: found.end("number")]
            if key in keys:
                raise DatasetError(f"{file}: line {number} gives {key} a second time")
            keys.add(key)
            yield number, found["name"], found["caption"]


def _listed(file: Path) -> list[str]:
    with open_text(file) as lines:
        names = [line.strip() for line in lines if line.strip()]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise DatasetError(f"{file}: lists {repeated} twice")
    # Flickr30k Entities lists numbers alone.
    return [name if Path(name).suffix else f"{name}.jpg" for name in names]
