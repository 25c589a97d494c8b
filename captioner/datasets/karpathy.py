"""Karpathy's splits: ``dataset_coco.json``, ``dataset_flickr8k.json``, ``dataset_flickr30k.json``, ``dataset.json``.

Karpathy and Fei-Fei 2015, arXiv:1412.2306. COCO's ``restval`` (val2014 images outside val and test) joins
train, as in the literature.
"""

from pathlib import Path
from typing import Any

from captioner.datasets.options import Source
from captioner.datasets.records import ALL, SPLIT_NAMES, ImageId, Record, inside, read_json, spoken
from captioner.errors import DatasetError

_SPLITS = {**SPLIT_NAMES, "restval": "train", ALL: ALL}


def read(source: Source, split: str) -> list[Record]:
    """Records of one split in the file's order; the id is ``cocoid`` where there is one, else the file name.

    Of images without a ``split`` a seeded share is held out.

    Raises:
        DatasetError: for a file that is absent, malformed or of another kind.
    """
    file = source.annotations_file(("dataset_*.json", "dataset.json"))
    contents = read_json(file)
    match contents:
        case {"images": [{"sentences": _}, *_]}:
            pass
        case {"images": [*_], "annotations": _}:
            raise DatasetError(f"{file}: a COCO file, not one of Karpathy's", "read it with `dataset` coco")
        case _:
            raise DatasetError(f"{file}: not one of Karpathy's files (images with sentences are expected)")
    images = _Images(source, file)
    records: list[Record] = []
    seen: set[ImageId] = set()
    for position, image in enumerate(contents["images"]):
        record = _record(image, images, f"{file}: images[{position}]")
        if record.image_id in seen:
            raise DatasetError(f"{file}: images[{position}] repeats the image {record.image_id}")
        seen.add(record.image_id)
        records.append(record)
    return source.divide(records, split)


class _Images:
    """Find images that lie in subfolders (``filepath``) or all in one folder."""

    def __init__(self, source: Source, file: Path) -> None:
        self._file = file
        self._folder = source.image_folder(file)
        self._roots = [self._folder]
        if source.images is None:
            self._roots.append(source.folder or file.parent)
        self._found: dict[str, Path] = {"": self._folder}

    def path(self, folder: str, name: str) -> Path:
        if folder not in self._found:
            places = [inside(root, folder, self._file) for root in self._roots]
            self._found[folder] = next((place for place in places if place.is_dir()), self._folder)
        return inside(self._found[folder], name, self._file)


def _record(image: Any, images: _Images, where: str) -> Record:
    match image:
        case {"filename": str(name), "sentences": [*sentences]}:
            split = image.get("split") or ALL
        case _:
            raise DatasetError(f"{where} lacks a text 'filename' or a list 'sentences'")
    if not isinstance(split, str) or split not in _SPLITS:
        raise DatasetError(f"{where} is in an unknown split {split!r}", f"known are {', '.join(_SPLITS)}")
    captions = []
    for sentence in sentences:
        match sentence:
            case {"raw": str(raw)}:
                captions.append(raw)
            case _:
                raise DatasetError(f"{where} has a sentence without a text 'raw'")
    number, folder = image.get("cocoid", name), image.get("filepath", "")
    if not isinstance(number, int | str) or not isinstance(folder, str):
        raise DatasetError(f"{where} has a 'cocoid' that is no number or a 'filepath' that is no text")
    return Record(number, images.path(folder, name), spoken(captions), _SPLITS[split])
