"""Captioned images as records, one module for each way in which they lie on disk."""

import sys
from collections.abc import Callable
from functools import cache

from captioner.datasets import coco, coco_cn, flickr, imagefolder, karpathy, table, textcaps
from captioner.datasets.options import CODES, KINDS, DatasetOptions, Source
from captioner.datasets.records import ImageId, Record, canonical_split, listed, present
from captioner.errors import DatasetError

__all__ = [
    "CODES",
    "KINDS",
    "DatasetOptions",
    "ImageId",
    "Record",
    "present",
    "read_each",
    "read_records",
    "read_source",
]


def _read_images(source: Source, split: str) -> list[Record]:
    from captioner.datasets import codes, sidecars, webdataset  # import NumPy, which no other data set needs

    readers = {"codes": codes.read, "sidecars": sidecars.read, "webdataset": webdataset.read}
    return readers[source.kind](source, split)


_READERS: dict[str, Callable[[Source, str], list[Record]]] = {
    **dict.fromkeys(("coco", "vizwiz", "nocaps", "stair"), coco.read),
    **dict.fromkeys(("flickr8k", "flickr30k"), flickr.read),
    "coco-cn": coco_cn.read,
    "karpathy": karpathy.read,
    "textcaps": textcaps.read,
    "table": table.read,
    "imagefolder": imagefolder.read,
    **dict.fromkeys(("sidecars", "webdataset", "codes"), _read_images),
}


def read_source(source: Source, split: str) -> list[Record]:
    """Read one split of one data set; what is damaged in it is then in ``source.damage``.

    Raises:
        DatasetError: it cannot be read.
    """
    return _READERS[source.kind](source, split)


def read_each(options: DatasetOptions, split: str, *, every: bool = True) -> list[tuple[str, list[Record]]]:
    """Read one split of each data set.

    Args:
        options: which data sets, and where.
        split: ``train``, ``val`` (also ``dev``, ``validation``), ``test`` or ``all``.
        every: whether every data set must have something in the split; else one is enough, and others are left out.

    Returns:
        Per data set, in the order given: a short label that is unique among them (``table``, ``table-2``)
        and its records, at least one; captions of one image are in one record.

    Raises:
        OptionError: for an unknown split.
        DatasetError: for a data set that cannot be read or has nothing in the split.
    """
    wanted = canonical_split(split)
    labelled: list[tuple[str, list[Record]]] = []
    sources = options.sources()
    for position, source in enumerate(sources):
        nth = 1 + sum(earlier.kind == source.kind for earlier in sources[:position])
        records = read_source(source, wanted)
        if source.damage:
            _say(f"{source.kind}: left out {len(source.damage):,} damaged rows: {listed(source.damage, '; ')}")
        if not records and not every and (labelled or position + 1 < len(sources)):
            continue
        if not records:
            place = source.folder or source.annotations or source.captions
            missing = f"{source.kind} in {place}: no captioned image in the split '{split}'"
            raise DatasetError(missing + _advice(source.kind, wanted))
        labelled.append((source.kind if nth == 1 else f"{source.kind}-{nth}", records))
    return labelled


@cache  # a data set is read once for each of its splits
def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _advice(kind: str, split: str) -> str:
    """What to do where a split is empty, for data sets that people make themselves."""
    held_out = "at least two images, and `holdout` above 0"
    column = f"rows that say {split} in a column 'split'"
    if kind in ("imagefolder", "sidecars", "webdataset", "flickr8k", "flickr30k", "karpathy") and split == "val":
        return f"; it needs {held_out}"
    ways = {
        ("table", "val"): f"; it needs {held_out}, or {column}",
        ("table", "test"): f"; it needs {column}",
        ("codes", "val"): f"; it needs {held_out}",
    }
    return ways.get((kind, split), "")


def read_records(options: DatasetOptions, split: str) -> list[Record]:
    """One split of all data sets, joined in the order given; see :func:`read_each`.

    Ids are unique within a data set only: two data sets that share images both contribute them.
    """
    return [record for _, records in read_each(options, split) for record in records]
