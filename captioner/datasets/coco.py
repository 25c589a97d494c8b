"""MS COCO captions in the official layout, and the data sets that are published in its format.

A folder holds the files of captions, or ``annotations/`` does, beside the folders of images; or one file and one
folder are named by hand. COCO (Chen et al. 2015, arXiv:1504.00325), VizWiz-Captions (Gurari et al. 2020,
arXiv:2002.08565), nocaps (Agrawal et al. 2019, arXiv:1812.08658), STAIR (Yoshikawa et al. 2017, arXiv:1705.00823).
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from captioner.datasets.options import Source
from captioner.datasets.records import ALL, ByPath, ImageId, Record, inside, listed, read_json, spaced, split_in, spoken
from captioner.errors import DatasetError, NoDatasetError, OptionError

# For each kind the names of its files, and the folders of their images; the first name that is found counts.
_LAYOUTS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "coco": (("captions_{}2017.json", ("{}2017",)), ("captions_{}2014.json", ("{}2014",))),
    "vizwiz": (("{}.json", ("{}",)),),
    "nocaps": (("nocaps_{}_4500_captions.json", ("{}", "validation")),),
    "stair": (
        *((f"stair_captions_{version}_{{}}_tokenized.json", ("{}2014",)) for version in ("v1.2", "v1.1")),
        *((f"stair_captions_{version}_{{}}.json", ("{}2014",)) for version in ("v1.2", "v1.1")),
    ),
}
_IMAGE_NAME = re.compile(r"(?:COCO_[a-z]+[0-9]{4}_)?([0-9]{12})")
_UNUSED = ("is_rejected", "is_precanned")  # VizWiz: captions that are spam, and a sentence for useless images
_TOKENIZED = "tokenized_caption"  # STAIR: the same caption with blanks between its words


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
    parts = [_named_part(source, place, split)] if place.is_file() else _official_parts(source, place, split)
    return [record for part in parts for record in _read_part(part, source.kind)]


def listed_images(file: Path, folder: Path | None) -> list[Path]:
    """The images of a COCO file, which may hold no captions (``image_info_test2014.json``).

    Args:
        file: the file.
        folder: where the images are; unless given, in a folder named like the file's split, or ``images``.

    Raises:
        DatasetError: the file is no such file, or the folder is absent.
    """
    contents = read_json(file)
    if not isinstance(contents, dict) or not isinstance(contents.get("images"), list) or not contents["images"]:
        raise DatasetError(f"{file}: has no list 'images'", "give COCO's image_info_*.json")
    own = results_set(file)
    places = [root / name for root in (file.parent, file.parent.parent) for name in (own, "images")]
    found = folder or next((place for place in places if place.is_dir()), None)
    if found is None or not found.is_dir():
        raise DatasetError(f"{found or places[0]}: there is no such folder of images", "name the folder of the images")
    return [inside(found, name, file) for _, _, name in _pairs(contents, "images", "id", "file_name", file)]


def results_set(file: Path) -> str:
    """What COCO's server calls the images of a file: ``test2014`` for ``image_info_test2014.json``."""
    return file.stem.removeprefix("image_info_").removeprefix("captions_")


def _named_part(source: Source, file: Path, split: str) -> _Part:
    own = split_in(file.stem)
    if split not in (own, ALL):
        holds = "does not say which split it holds" if own == ALL else f"holds the {own} split"
        raise DatasetError(f"{file}: the name {holds}", f"ask for `split` {own}, or name the {split} file instead")
    usual = (results_set(file), *(name.format(own) for _, names in _LAYOUTS[source.kind] for name in names), "images")
    return _Part(own, file, source.image_folder(file, usual))


def _official_parts(source: Source, place: Path, split: str) -> list[_Part]:
    captions = place if source.annotations or not (place / "annotations").is_dir() else place / "annotations"
    for pattern, folders in _LAYOUTS[source.kind]:
        files = {own: _perhaps_compressed(captions / pattern.format(own)) for own in ("train", "val")}
        parts = []
        for own, file in files.items():
            if file.is_file() and split in (own, ALL):
                usual = (*(folder.format(own) for folder in folders), "images")
                parts.append(_Part(own, file, source.image_folder(file, usual)))
        if parts:
            return parts
        if any(file.is_file() for file in files.values()):
            raise DatasetError(
                f"{captions}: holds no {pattern.format(split)}"
            )  # Not that of another year: they overlap.
    wanted = "{train,val}" if split == ALL else split
    names = " or ".join(pattern.format(wanted) for pattern, _ in _LAYOUTS[source.kind])
    raise NoDatasetError(f"{captions}: holds no {names}")


def _perhaps_compressed(file: Path) -> Path:
    compressed = file.with_name(f"{file.name}.gz")
    return compressed if compressed.is_file() and not file.is_file() else file


def _read_part(part: _Part, kind: str) -> list[Record]:
    contents = read_json(part.file)
    _check_kind(contents, part.file)
    names: dict[ImageId, str] = {}
    for position, number, name in _pairs(contents, "images", "id", "file_name", part.file):
        if number in names:
            raise DatasetError(f"{part.file}: images[{position}] has the id {number} a second time")
        names[number] = name
    domains = {image["id"]: str(image["domain"]) for image in contents["images"] if "domain" in image}
    captions: dict[ImageId, list[str]] = {number: [] for number in names}
    by_text = {str(number): number for number in names}  # some files have one id as a number here and a text there
    text_key = _TOKENIZED if _TOKENIZED in contents["annotations"][0] else "caption"
    for position, number, text in _pairs(contents, "annotations", "image_id", text_key, part.file):
        number = by_text.get(str(number), number)
        if number not in captions:
            raise DatasetError(f"{part.file}: annotations[{position}] is for image {number}, not in images")
        if not any(contents["annotations"][position].get(flag) for flag in _UNUSED):
            captions[number].append(spaced(text) if kind == "stair" and text_key != _TOKENIZED else text)
    return [
        Record(number, inside(part.images, name, part.file), texts, part.split, domain=domains.get(number, ""))
        for number, name in names.items()
        if (texts := spoken(captions[number]))
    ]


def _check_kind(contents: Any, file: Path) -> None:
    """Recognise other files that people take for one."""
    if isinstance(contents, list):
        raise DatasetError(f"{file}: a list, as in a results file", "give COCO's captions_*.json")
    match contents:
        case {"images": [*_], "annotations": [{"caption": _} | {"tokenized_caption": _}, *_]}:
            return
        case {"images": [*_], "annotations": [{"category_id": _} | {"bbox": _}, *_]}:
            raise DatasetError(f"{file}: holds objects, not captions", "give COCO's captions_*.json")
        case {"images": [{"sentences": _}, *_]}:
            raise DatasetError(f"{file}: a file of Karpathy's splits", "read it with `dataset` karpathy")
        case {"images": [*_], "annotations": []} | {"images": [*_]}:
            advice = "its images are captioned by captioner caption with `images_from`"
            raise DatasetError(f"{file}: holds no captions under 'annotations'", advice)
    raise DatasetError(f"{file}: not a COCO caption file ('images' and 'annotations' are expected)")


def _pairs(
    contents: Any, member: str, number_key: str, text_key: str, file: Path
) -> Iterator[tuple[int, ImageId, str]]:
    """Position, id and text of every entry of a list; a loop over 600,000 entries, so kept plain."""
    for position, entry in enumerate(contents[member]):
        number = entry.get(number_key) if isinstance(entry, dict) else None
        text = entry.get(text_key) if isinstance(entry, dict) else None
        if (type(number) is not int and type(number) is not str) or not isinstance(text, str):
            raise DatasetError(f"{file}: {member}[{position}] lacks an id '{number_key}' or a text '{text_key}'")
        yield position, number, text


class CocoIds:
    """Finds the id of an image in an annotations file, or else in its name (``000000000139.jpg``).

    Args:
        annotations: COCO file whose ``images`` have ``file_name`` and ``id``; None goes by names alone. An image
            is the one whose ``file_name``, folders included, its path ends in.

    Raises:
        DatasetError: the file is no such file.
    """

    def __init__(self, annotations: str | None) -> None:
        self._annotations = annotations
        self._ids = None if annotations is None else ByPath(_numbered(Path(annotations)), annotations)

    def __call__(self, image: str) -> int:
        """The number of an image.

        Raises:
            OptionError: it has none.
        """
        path = Path(image)
        if self._ids is not None:
            number = self._ids(os.path.abspath(image))  # noqa: PTH100 - resolve() follows links
            if isinstance(number, int):
                return number
            what = f"{_shown(image)}: is not among the images of {self._annotations}"
            others = self._ids.ending_in(path.name)
            raise OptionError(what, f"that has {listed(others)}, in another folder" if others else "")
        if match := _IMAGE_NAME.fullmatch(path.stem):
            return int(match[1])
        what = f"{_shown(image)}: has no number for the format coco"
        raise OptionError(what, "give the ids with `annotations` FILE")


def _numbered(path: Path) -> Iterator[tuple[str, int]]:
    contents = read_json(path)
    images = contents.get("images") if isinstance(contents, dict) else None
    if not isinstance(images, list) or not images:
        raise DatasetError(f"{path}: has no list 'images'", "a COCO annotations file is expected")
    for position, image in enumerate(images):
        name, number = (image.get("file_name"), image.get("id")) if isinstance(image, dict) else (None, None)
        if not isinstance(name, str) or type(number) is not int:
            raise DatasetError(f"{path}: images[{position}] needs a 'file_name' and a whole number 'id'")
        yield name, number


def _shown(image: str) -> str:
    from captioner.images import display_name  # not above: data sets are read without Pillow

    return display_name(image)
