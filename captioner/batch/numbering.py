"""Numbers of pictures, as COCO's results files name them."""

from __future__ import annotations

import re
from pathlib import Path

from captioner.datasets.reading import read_json
from captioner.errors import DatasetError, OptionError
from captioner.images import display_name

_COCO_NAME = re.compile(r"(?:COCO_[a-z]+[0-9]{4}_)?([0-9]{12})")


class CocoNumbers:
    """Finds the id of a picture in an annotations file, or else in its name (``000000000139.jpg``).

    Args:
        annotations: COCO file whose ``images`` have ``file_name`` and ``id``; None goes by names alone.

    Raises:
        DatasetError: the file is no such file.
    """

    def __init__(self, annotations: str | None) -> None:
        self._annotations = annotations
        self._ids = None if annotations is None else _read_ids(Path(annotations))

    def __call__(self, image: str) -> int:
        """The number of a picture.

        Raises:
            OptionError: it has none.
        """
        path = Path(image)
        if self._ids is not None:
            if path.name in self._ids:
                return self._ids[path.name]
            raise OptionError(f"{display_name(path)}: is not among the images of {self._annotations}")
        if match := _COCO_NAME.fullmatch(path.stem):
            return int(match[1])
        raise OptionError(
            f"{display_name(path)}: has no number for the format coco", "give the ids with `annotations` FILE"
        )


def _read_ids(path: Path) -> dict[str, int]:
    contents = read_json(path)
    images = contents.get("images") if isinstance(contents, dict) else None
    if not isinstance(images, list) or not images:
        raise DatasetError(f"{path}: has no list 'images'", "a COCO annotations file is expected")
    ids: dict[str, int] = {}
    for position, image in enumerate(images):
        name, number = (image.get("file_name"), image.get("id")) if isinstance(image, dict) else (None, None)
        if not isinstance(name, str) or type(number) is not int:
            raise DatasetError(f"{path}: images[{position}] needs a 'file_name' and a whole number 'id'")
        if ids.setdefault(Path(name).name, number) != number:
            raise DatasetError(f"{path}: {Path(name).name} has two ids, {ids[Path(name).name]} and {number}")
    return ids
