"""Flickr8k as it was published: a token file, three lists of images and a folder of images.

Hodosh, Young and Hockenmaier 2013, "Framing Image Description as a Ranking Task", JAIR 47.
"""

import re
from pathlib import Path

from captioner.datasets.options import Source
from captioner.datasets.records import ALL, Record, inside, open_text, spoken
from captioner.errors import DatasetError

_TOKENS = "Flickr8k.token.txt"
_LISTS = {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt"}
_LINE = re.compile(r"(?P<name>[^\t]+)#(?P<number>\d+)\t(?P<caption>.*)")


def read(source: Source, split: str) -> list[Record]:
    """Records of one split in the order of its list; the id is the file name.

    Captions of images in no list (``2258277193_586949ec62.jpg.1`` in some copies) are ignored.

    Raises:
        DatasetError: for a file that is absent or malformed, or an image that is listed twice.
    """
    file = source.annotations_file((_TOKENS,))
    images = source.image_folder(file)
    captions = _captions(file)
    listed = [
        (own, image) for own, name in _LISTS.items() if split in (own, ALL) for image in _listed(file.parent / name)
    ]
    records = [
        Record(image, inside(images, image, file), texts, own)
        for own, image in listed
        if (texts := spoken(captions.get(image, [])))
    ]
    if len({record.image_id for record in records}) < len(records):
        raise DatasetError(f"{file.parent}: an image is in two of the lists {', '.join(_LISTS.values())}")
    return records


def _captions(file: Path) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    keys: set[str] = set()
    with open_text(file) as lines:
        for number, line in enumerate(lines, start=1):
            text = line.rstrip("\r\n")
            if not text:
                continue
            found = _LINE.fullmatch(text)
            if found is None:
                raise DatasetError(f"{file}: line {number} is not 'photo.jpg#0<TAB>caption'")
            key = text[: found.end("number")]
            if key in keys:
                raise DatasetError(f"{file}: line {number} gives {key} a second time")
            keys.add(key)
            captions.setdefault(found["name"], []).append(found["caption"])
    return captions


def _listed(file: Path) -> list[str]:
    with open_text(file) as lines:
        names = [line.strip() for line in lines if line.strip()]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise DatasetError(f"{file}: lists {repeated} twice")
    return names
