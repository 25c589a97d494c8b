"""Finds the human captions that the command line's options name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from captioner.datasets import present, read_records
from captioner.datasets.records import ALL
from captioner.errors import OptionError
from captioner.evaluation.references import HumanCaptions, read_annotations

if TYPE_CHECKING:
    from captioner.datasets.options import DatasetOptions
    from captioner.datasets.records import Record


class Photos(NamedTuple):
    """The photos of a data set that are to be captioned.

    Attributes:
        records: those on disk.
        absent: how many were left out because they are not.
        available: how many the data set names.
        name: data set and split, for the signature.
    """

    records: list[Record]
    absent: int
    available: int
    name: str


def find_photos(options: DatasetOptions, split: str | None, limit: int | None) -> Photos:
    """Finds the photos to caption.

    Args:
        options: the data set.
        split: ``val``, ``test``, ...; :func:`usual_split` unless given.
        limit: take only that many of the photos on disk.

    Raises:
        DatasetError: the data set cannot be read, or photos are absent and may not be skipped.
    """
    split = split or usual_split(options)
    records = read_records(options, split)
    kept, absent = present(records, options.skip_missing)
    return Photos(kept[:limit], len(absent), len(records), _name(options, split))


def find_references(
    options: DatasetOptions | None, split: str | None, *, annotations: str | None, images: str | None
) -> tuple[HumanCaptions, str]:
    """Finds human captions to judge by; their photos need not be on disk.

    Args:
        options: a data set; None for a COCO caption file alone.
        split: of the data set; :func:`usual_split` unless given.
        annotations: the COCO caption file, without a data set.
        images: folder of its photos, where a report is to show them.

    Returns:
        The captions, and what to call them.

    Raises:
        OptionError: neither a data set nor a file is named.
        DatasetError: the data set or file cannot be read.
        EvaluationError: the file is no caption file.
    """
    if options is not None:
        split = split or usual_split(options)
        return HumanCaptions.from_records(read_records(options, split)), _name(options, split)
    if annotations is None:
        raise OptionError("give `annotations` FILE, or `dataset` with its folder, to say what to judge by")
    return read_annotations(annotations, images), Path(annotations).name


def training_captions(options: DatasetOptions) -> list[str]:
    """Returns all captions of the train split.

    Raises:
        DatasetError: the data set has no train split.
    """
    return [text for record in read_records(options, "train") for text in record.captions]


def usual_split(options: DatasetOptions) -> str:
    """Returns the split that is evaluated unless another is named: ``val``, or all of a COCO file."""
    places = [source.annotations for source in options.sources() if source.kind == "coco"]
    return ALL if places and all(place is not None and place.is_file() for place in places) else "val"


def _name(options: DatasetOptions, split: str) -> str:
    kinds = "+".join(source.kind for source in options.sources())
    return f"{kinds} {split if split != ALL else Path(options.annotations or ALL).name}"
