"""Course files: ready-made vectors of pictures and their captions, without the pictures.

``image_codes.npy`` holds one vector an image, or one vector a region; ``captions_tokenized.json`` a list
with one list of captions for each image, in the same order. A seeded share of the images is held out for
validation.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from captioner.datasets.holdout import held_out
from captioner.datasets.reading import read_json, spoken
from captioner.datasets.records import ALL, Record
from captioner.datasets.vectors import open_vectors
from captioner.errors import DatasetError

if TYPE_CHECKING:
    from captioner.datasets.options import Source

_CODES, _CAPTIONS = "image_codes.npy", "captions_tokenized.json"


def codes_file(source: Source) -> Path:
    """Where the vectors of a data set lie."""
    return _place(source, source.codes, _CODES)


def read(source: Source, split: str) -> list[Record]:
    """Records of one split in the files' order; the id of an image is its row, counted from 0.

    Raises:
        DatasetError: a file is absent or malformed, their lengths differ, or an image has no caption and must
            not be skipped.
    """
    codes, file = codes_file(source), _place(source, source.captions, _CAPTIONS)
    vectors = open_vectors(codes)
    captions = _captions(file)
    if len(captions) != len(vectors):
        raise DatasetError(
            f"{codes} has {len(vectors):,} images, {file} has captions of {len(captions):,}",
            "both must tell of the same images in the same order",
        )
    silent = [row for row, texts in enumerate(captions) if not texts]
    if silent and not source.skip_missing:
        raise DatasetError(
            f"{file}: {len(silent):,} of {len(captions):,} images have no caption, the first is image "
            f"{silent[0]}",
            "give `skip_missing` to go on without them",
        )
    spoken_of = [row for row, texts in enumerate(captions) if texts]
    held_back = held_out([str(row) for row in spoken_of], source.holdout, source.holdout_seed)
    records = []
    for row in spoken_of:
        own = "val" if str(row) in held_back else "train"
        if split in (own, ALL):
            records.append(Record(row, codes, captions[row], own, row))
    return records


def _place(source: Source, named: Path | None, usual: str) -> Path:
    # What is not named lies in the folder; DatasetOptions sees to it that there is one then.
    return named or (source.folder or Path()) / usual


def _captions(file: Path) -> list[tuple[str, ...]]:
    content = read_json(file)
    if not isinstance(content, list):
        raise DatasetError(f"{file}: must hold a list with one list of captions for each image")
    captions = []
    for row, texts in enumerate(content):
        if not isinstance(texts, list):
            raise DatasetError(f"{file}: image {row}: must have a list of captions, not {_kind(texts)}")
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise DatasetError(f"{file}: image {row}, caption {place}: must be a text, not {_kind(text)}")
        captions.append(spoken(texts))
    return captions


def _kind(value: object) -> str:
    names = {str: "a text", list: "a list", dict: "an object", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
