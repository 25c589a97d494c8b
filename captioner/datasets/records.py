"""A captioned image, the names of splits, and the question whether the images are there."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from captioner.errors import DatasetError, OptionError

ImageId = int | str

ALL = "all"
"""Asks for every split; as a record's own split: the data set does not say."""

SPLIT_NAMES = {"train": "train", "val": "val", "dev": "val", "validation": "val", "test": "test"}
"""Every accepted name of a split, and what the split is called here."""

_NAMED = 3  # how many absent images an error names


@dataclass(frozen=True)
class Record:
    """One image and all of its captions.

    Attributes:
        image_id: COCO's number where the data set has one, else the image's name; unique within a data set.
        path: where the image should lie; whether it does is for :func:`present` to say.
        captions: the captions as written, in the file's order, at least one.
        split: ``"train"``, ``"val"`` or ``"test"``, or ``"all"`` where the data set does not say.
        row: where there is a ready-made vector instead of an image, its row in the array at ``path``.
    """

    image_id: ImageId
    path: Path
    captions: tuple[str, ...]
    split: str
    row: int | None = None


def canonical_split(name: str) -> str:
    """The name used here for a split: ``train``, ``val`` (also dev, validation), ``test`` or ``all``.

    Raises:
        OptionError: for any other name.
    """
    if name == ALL:
        return ALL
    if name not in SPLIT_NAMES:
        raise OptionError(f"`split` {name}: no such split", f"choose from {', '.join(SPLIT_NAMES)}, {ALL}")
    return SPLIT_NAMES[name]


def refuse_train_split(records: Sequence[Record], label: str, purpose: str) -> None:
    """Accept images that models are not trained on.

    Args:
        records: images.
        label: what to call them.
        purpose: what they are for, as a verb.

    Raises:
        OptionError: some are of a train split.
    """
    if any(record.split == "train" for record in records):
        raise OptionError(f"{label}: holds a train split", f"{purpose} on images that nobody trains on")


def present(records: Sequence[Record], skip_missing: bool) -> tuple[list[Record], list[Record]]:
    """Divide records into those whose image is on disk and those whose image is absent.

    Args:
        records: what a reader returned.
        skip_missing: whether absent images are left out instead of being an error.

    Returns:
        The kept and the absent records, each in the order given.

    Raises:
        DatasetError: when not one image is there, or when some are absent and ``skip_missing`` is false.
    """
    kept: list[Record] = []
    absent: list[Record] = []
    for record in records:
        (kept if record.path.is_file() else absent).append(record)
    if records and not kept:
        folders = list(dict.fromkeys(str(record.path.parent) for record in records))
        looked = ", ".join(folders[:_NAMED]) + (", ..." if len(folders) > _NAMED else "")
        raise DatasetError(
            f"not one of the {len(records):,} images is in {looked} (the first would be {records[0].path.name})",
            "say with `images` where the images are",
        )
    if absent and not skip_missing:
        names = ", ".join(record.path.name for record in absent[:_NAMED])
        more = ", ..." if len(absent) > _NAMED else ""
        raise DatasetError(
            f"{len(absent):,} of {len(records):,} images are absent from {absent[0].path.parent}: {names}{more}",
            "give `skip_missing` to go on without them",
        )
    return kept, absent


_LEAST = 2  # the CIDEr of a single image is always 0


def held_out(names: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """Choose a seeded share of some images.

    A digest of seed and name ranks them, so that the choice does not depend on their order. Unless the share
    is 0, at least two images are held out (one of two or three), and at least one is left.

    Args:
        names: the images, each once.
        share: at least 0 and below 1.
        seed: chooses which.
    """
    least = 1 if len(names) < 2 * _LEAST else _LEAST
    count = min(max(least, round(share * len(names))), len(names) - 1) if share and names else 0
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return frozenset(ranked[:count])
