"""Captions without images: JSON lines, a line for what several people wrote of one image."""

from pathlib import Path

from captioner.datasets.table import captions_in, json_rows
from captioner.errors import DatasetError


def read_texts(path: str | Path) -> list[tuple[str, ...]]:
    """Read the captions of a file such as ``{"captions": ["a dog runs", "a brown dog"]}`` in each line.

    Args:
        path: the file, UTF-8, compressed if its name ends in ``.gz``.

    Returns:
        For each image its captions, at least one.

    Raises:
        DatasetError: the file cannot be read, a line is not such an object, or there is no caption at all.
    """
    path = Path(path).expanduser()
    texts: list[tuple[str, ...]] = []
    for place, row in json_rows(path):
        listed = isinstance(row.get("captions"), list)
        captions = captions_in(row, ("captions",), f"{path}: {place}") if listed else None
        if captions is None:
            what = f"{path}: {place} is no object with a list of texts as its captions"
            raise DatasetError(what, 'write {"captions": ["...", "..."]} in each line')
        texts.extend([captions] if captions else [])
    if not texts:
        raise DatasetError(f"{path}: holds no captions")
    return texts
