"""What the readers share: opening text and JSON with one clear error, and finding files and images."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from captioner.datasets.options import Source
from captioner.errors import DatasetError

_IMAGE_FOLDERS = ("images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images")


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 file (with or without byte-order mark), line ends as they are in the file.

    Raises:
        DatasetError: when the file is absent, unreadable, empty or not UTF-8, also while it is being read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.stat().st_size == 0:
                raise DatasetError(f"{path}: the file is empty")
            yield file
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text (byte {error.start})", "save it as UTF-8") from error
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: there is no such file") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error


def read_json(path: Path) -> Any:
    """The contents of a JSON file.

    Raises:
        DatasetError: when the file cannot be read or is not whole, valid JSON.
    """
    with open_text(path) as file:
        text = file.read()
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno} ({error.msg})",
            "perhaps the file is cut short",
        ) from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not valid JSON ({error})") from error


def inside(folder: Path, name: str, file: Path) -> Path:
    """The path of the image ``name`` in ``folder``.

    Raises:
        DatasetError: when the name that ``file`` gives leads out of the folder or is no name at all.
    """
    if not name or "\0" in name:
        raise DatasetError(f"{file}: {name!r} is not the name of an image")
    path = folder / name
    if os.sep in name or "/" in name or name in (".", ".."):
        root, full = os.path.abspath(folder), os.path.abspath(path)  # noqa: PTH100 - resolve() follows links
        if os.path.commonpath([root, full]) != root or full == root:
            raise DatasetError(f"{file}: the image {name!r} lies outside the folder {folder}")
    return path


def captions_place(source: Source) -> Path:
    """The file or folder with the captions: the one named for them, else the data set's folder.

    Raises:
        DatasetError: when it is not there.
    """
    place = source.annotations or source.folder
    if place is None or not place.exists():
        raise DatasetError(f"{place or source.kind}: there is no such file or folder with captions")
    return place


def annotations_in(source: Source, patterns: Sequence[str]) -> Path:
    """The one file with captions: the one named, else the first pattern's only match in the folder.

    Raises:
        DatasetError: when nothing matches, or a pattern matches several files.
    """
    place = captions_place(source)
    if place.is_file():
        return place
    for pattern in patterns:
        found = sorted(path for path in place.glob(pattern) if path.is_file())
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise DatasetError(f"{place}: several files could be meant ({names})", "say which with `annotations`")
        if found:
            return found[0]
    raise DatasetError(f"{place}: holds no {' or '.join(patterns)}", "say where it is with `annotations`")


def image_folder(source: Source, annotations: Path, usual: Sequence[str] = _IMAGE_FOLDERS) -> Path:
    """Where the images lie: the folder named, else one of the usual ones, else the data set's folder.

    Raises:
        DatasetError: when a folder is named that is not there.
    """
    if source.images is not None:
        if not source.images.is_dir():
            raise DatasetError(f"{source.images}: there is no such folder of images")
        return source.images
    root = source.folder or annotations.parent
    return next((root / name for name in usual if (root / name).is_dir()), root)


def spoken(captions: Sequence[str]) -> tuple[str, ...]:
    """The captions that say something; white space alone is no caption."""
    return tuple(caption for caption in captions if caption.strip())
