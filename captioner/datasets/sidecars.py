"""Images with their captions in text files beside them, as trainers of image generators have them.

``dog.txt`` or ``dog.caption`` (or ``dog.jpg.txt``) beside ``dog.jpg``, one caption a line. This is what
``captioner caption --format sidecar`` writes.
"""

from pathlib import Path

from captioner.datasets.options import Source
from captioner.datasets.records import Record, split_of_folders, spoken
from captioner.errors import NoDatasetError
from captioner.images import find

_ENDINGS = (".txt", ".caption", ".TXT")


def read(source: Source, split: str) -> list[Record]:
    """Records of one split in natural order; the id is the path below the folder, and folders may be splits.

    An image without such a file, or with an empty one, has no caption.

    Raises:
        DatasetError: the folder is absent, or there is not one caption in it.
    """
    folder = source.images or source.folder
    if folder is None or not folder.is_dir():
        raise NoDatasetError(f"{folder or source.kind}: there is no such folder of images")
    records = []
    for image in find.find_images([folder]):
        files = [file for file in _places(image) if file.is_file()]
        if files:
            name = image.relative_to(folder).as_posix()
            records.append(Record(name, image, _lines(files[0], source), split_of_folders(name)))
    if not records:
        raise NoDatasetError(f"{folder}: holds no image with a {' or '.join(_ENDINGS[:2])} file beside it")
    return source.divide(records, split)


def _places(image: Path) -> list[Path]:
    """The files that may hold an image's captions, the surest first."""
    names = [image.name + ending for ending in _ENDINGS] + [image.stem + ending for ending in _ENDINGS]
    return [image.with_name(name) for name in names]


def _lines(file: Path, source: Source) -> tuple[str, ...]:
    try:
        return spoken([line.strip() for line in file.read_bytes().decode("utf-8-sig").splitlines()])
    except UnicodeDecodeError as error:
        line = 1 + file.read_bytes().count(b"\n", 0, error.start)
        source.damage.append(f"{file}: line {line} is not UTF-8 text")
    except OSError as error:
        source.damage.append(f"{file}: cannot be read ({error.strerror})")
    return ()
