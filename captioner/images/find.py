"""Find images or other files: from what a user names to a stream of paths in a stable order."""

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from captioner.errors import ImageError

RAW_EXTENSIONS = frozenset(
    {".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".sr2", ".srf", ".raf"}
    | {".orf", ".rw2", ".rwl", ".pef", ".srw", ".3fr", ".iiq", ".erf", ".mrw", ".x3f"}
)
IMAGE_EXTENSIONS = RAW_EXTENSIONS | frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp"}
    | {".tif", ".tiff", ".avif", ".heic", ".heif", ".hif", ".jxl"}
)

# Device and inode numbers, which all links to one folder share.
_FolderId = tuple[int, int]


def find_images(
    paths: Iterable[str | os.PathLike[str]],
    *,
    recursive: bool = True,
    extensions: Collection[str] = IMAGE_EXTENSIONS,
) -> Iterator[Path]:
    """Yield the images that paths name: files as they are, folders by the extensions of their files.

    Folders are read one at a time, when their turn comes: first a folder's own files, then its sub-folders,
    each in natural order (`img2` before `img10`). Names that begin with a dot are skipped in folders. A
    folder is entered once, however many links lead to it, and a file is yielded once, however often it is
    named; two links to one file are two files. What `open_image` will refuse is yielded as well, so that it
    gets an error of its own while the others are captioned: a named file that is absent, a broken link, a
    folder that cannot be read, a folder called like an image that holds none (or is not looked into).

    Args:
        paths: Files and folders, in the order wanted. A file named here is yielded whatever its extension.
        recursive: Whether to look into the folders inside folders.
        extensions: Those of the files wanted, in lower case; other files than images are found the same way.

    Yields:
        Paths that begin as the given path did.

    Raises:
        ImageError: A path is an empty string.
    """
    entered: set[_FolderId] = set()
    named: set[tuple[_FolderId | None, str]] = set()
    for given in paths:
        if not os.fspath(given):  # `Path("")` would be the current folder.
            raise ImageError("an empty path was given", "name an image or a folder")
        path = Path(given)
        if _is_folder(path):
            for folder, file in _walk(path, entered, recursive, extensions):
                if (folder, file.name) not in named:
                    yield file
            continue
        folder = _folder_id(path.parent)
        key = (folder, str(path) if folder is None else path.name)
        if key not in named and not (folder in entered and _is_listed(path.name, extensions)):
            named.add(key)
            yield path


def _walk(
    top: Path, entered: set[_FolderId], recursive: bool, extensions: Collection[str]
) -> Iterator[tuple[_FolderId | None, Path]]:
    """Yield (folder's identity, file) for the images in folders that have not been entered before."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        identity = _folder_id(folder)
        if identity in entered:
            continue
        if identity is not None:
            entered.add(identity)
        try:
            with os.scandir(folder) as entries:
                shown = (entry for entry in entries if not entry.name.startswith("."))
                listed = sorted(shown, key=lambda entry: natural_order(entry.name))
        except OSError:
            yield None, folder
            continue
        folders: list[Path] = []
        for entry in listed:
            if _is_folder(entry):
                folders.append(folder / entry.name)
                if not recursive and _is_listed(entry.name, extensions):
                    yield identity, folder / entry.name
            elif _is_listed(entry.name, extensions):
                yield identity, folder / entry.name
        nothing = not folders and not any(_is_listed(entry.name, extensions) for entry in listed)
        if nothing and _is_listed(folder.name, extensions):
            yield identity, folder  # Its name promises an image, and nothing else would report it.
        if recursive:
            waiting.extend(reversed(folders))


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Key to sort file names by, such that `img2` comes before `img10`."""
    parts = re.split("([0-9]+)", Path(name).stem.casefold())  # Text and numbers in turn.
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _is_listed(name: str, extensions: Collection[str]) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in extensions


def _is_folder(path: Path | os.DirEntry[str]) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # A link to itself, a forbidden folder above it, a null character.
        return False


def _folder_id(folder: Path) -> _FolderId | None:
    """Return a folder's identity, or None where there is no such folder."""
    try:
        status = folder.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
