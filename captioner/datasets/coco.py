"""MS COCO captions in the official layout, 2017 or 2014.

``DIR/annotations/captions_{train,val}{2017,2014}.json`` beside ``DIR/{train,val}{2017,2014}/``, or one
annotations file and one folder of images named by hand (Chen et al. 2015, arXiv:1504.00325).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from captioner.datasets.options import Source
from captioner.datasets.records import ALL, SPLIT_NAMES, Record, inside, read_json, spoken
from captioner.errors import DatasetError

_YEARS = ("2017", "2014")
_SPLIT_IN_NAME = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_NAMES)})(?![a-z])")


class _Part(NamedTuple):
    """One annotations file, the split it holds and the folder of its images."""

    split: str
    file: Path
    images: Path


def read(source: Source, split: str) -> list[Record]:
    """Records of one split in the order of the file's ``images``; images without captions are left out.

    Raises:
        DatasetError: for a file that is absent, malformed or no caption file, or has no such split.
    """
    place = source.captions_place()
    if place.is_file():
        parts = [_named_part(source, place, split)]
    else:
        captions = place if source.annotations else place / "annotations"
        parts = _official_parts(source, captions, split)
    return [record for part in parts for record in _read_part(part)]


def _named_part(source: Source, file: Path, split: str) -> _Part:
    found = set(_SPLIT_IN_NAME.findall(file.stem))
    own = SPLIT_NAMES[found.pop()] if len(found) == 1 else ALL
    if split not in (own, ALL):
        holds = "does not say which split it holds" if own == ALL else f"holds the {own} split"
        raise DatasetError(f"{file}: the name {holds}", f"ask for `split` {own}, or name the {split} file instead")
    return _Part(own, file, source.image_folder(file, (file.stem.removeprefix("captions_"), "images")))


def _official_parts(source: Source, captions: Path, split: str) -> list[_Part]:
    for year in _YEARS:
        files = {own: captions / f"captions_{own}{year}.json" for own in ("train", "val")}
        parts = []
        for own, file in files.items():
            if file.is_file() and split in (own, ALL):
                parts.append(_Part(own, file, source.image_folder(file, (f"{own}{year}", "images"))))
        if parts:
            return parts
        if any(file.is_file() for file in files.values()):
            break  # Never the train split of one year and the val split of another: they overlap.
    wanted = "train,val" if split == ALL else split
    raise DatasetError(f"{captions}: holds no captions_{{{wanted}}}{{{','.join(_YEARS)}}}.json")


def _read_part(part: _Part) -> list[Record]:
    contents = read_json(part.file)
    _check_kind(contents, part.file)
    names: dict[int, str] = {}
    for position, number, name in _pairs(contents, "images", "id", "file_name", part.file):
        if number in names:
            raise DatasetError(f"{part.file}: images[{position}] has the id {number} a second time")
        names[number] = name
    captions: dict[int, list[str]] = {number: [] for number in names}
    for position, number, text in _pairs(contents, "annotations", "image_id", "caption", part.file):
        if number not in captions:
            raise DatasetError(f"{part.file}: annotations[{position}] is for image {number}, not in images")
        captions[number].append(text)
    return [
        Record(number, inside(part.images, name, part.file), texts, part.split)
        for number, name in names.items()
        if (texts := spoken(captions[number]))
    ]


def _check_kind(contents: Any, file: Path) -> None:
    """Recognise other files that people take for one."""
    if isinstance(contents, list):
        raise DatasetError(f"{file}: a list, as in a results file", "give COCO's captions_*.json")
    match contents:
        case {"images": [*_], "annotations": [{"caption": _}, *_]}:
            return
        case {"images": [*_], "annotations": [{"category_id": _} | {"bbox": _}, *_]}:
            raise DatasetError(f"{file}: holds objects, not captions", "give COCO's captions_*.json")
        case {"images": [{"sentences": _}, *_]}:
            raise DatasetError(f"{file}: a file of Karpathy's splits", "read it with `dataset` karpathy")
        case {"images": [*_], "annotations": []} | {"images": [*_]}:
            raise DatasetError(f"{file}: holds no captions under 'annotations'")
    raise DatasetError(f"{file}: not a COCO caption file ('images' and 'annotations' are expected)")


def _pairs(contents: Any, member: str, number_key: str, text_key: str, file: Path) -> Iterator[tuple[int, int, str]]:
    """Position, number and text of every entry of a list; a loop over 600,000 entries, so kept plain."""
    for position, entry in enumerate(contents[member]):
        number = entry.get(number_key) if isinstance(entry, dict) else None
        text = entry.get(text_key) if isinstance(entry, dict) else None
        if not isinstance(number, int) or isinstance(number, bool) or not isinstance(text, str):
            raise DatasetError(
                f"{file}: {member}[{position}] lacks a whole number '{number_key}' or a text '{text_key}'"
            )
        yield position, number, text
