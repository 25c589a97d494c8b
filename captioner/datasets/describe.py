"""What a folder holds: kinds of data sets, their splits, and what is absent or damaged."""

from pathlib import Path
from typing import NamedTuple

from captioner import tars
from captioner.datasets import CODES, KINDS, DatasetOptions, read_source
from captioner.datasets.records import ALL, SPLIT_NAMES, Record, listed
from captioner.errors import DatasetError, NoDatasetError
from captioner.images.find import find_images


class Finding(NamedTuple):
    """A folder read as one kind of data set.

    Attributes:
        kind: what ``dataset`` calls it.
        folder: where it lies.
        records: its captioned images.
        damage: rows that are left out: file, line and reason.
        error: why it cannot be read, empty if it can.
        same: other kinds that read the same captions there.
    """

    kind: str
    folder: Path
    records: list[Record]
    damage: list[str]
    error: str = ""
    same: tuple[str, ...] = ()


def examine(folder: Path, caption_column: str | None = None) -> list[Finding]:
    """Read a folder as every kind of data set; where it is none, its sub-folders.

    Args:
        folder: where to look.
        caption_column: as in :class:`DatasetOptions`.

    Returns:
        What can be read, or else what fits but is malformed.

    Raises:
        NoDatasetError: nothing there looks like a data set.
    """
    if not folder.is_dir():
        raise NoDatasetError(f"{folder}: there is no such folder")
    for places in ([folder], sorted(path for path in folder.iterdir() if path.is_dir())):
        found = [finding for place in places for finding in _kinds(place, caption_column)]
        if readable := [finding for finding in found if not finding.error]:
            return readable
        if found:
            return found
    infos = sorted(str(file) for file in folder.glob("**/*image_info*.json"))
    advice = (
        f"caption its images: captioner caption --images-from {infos[0]}" if infos else f"known are {', '.join(KINDS)}"
    )
    raise NoDatasetError(f"{folder}: holds no captioned images in a known form", advice)


def _kinds(folder: Path, caption_column: str | None) -> list[Finding]:
    found: list[Finding] = []
    for kind in KINDS:
        if kind == CODES and not (folder / "image_codes.npy").is_file():
            continue
        (source,) = DatasetOptions((kind,), data=str(folder), caption_column=caption_column).sources()
        try:
            records = read_source(source, ALL)
        except NoDatasetError:
            continue
        except DatasetError as error:
            found.append(Finding(kind, folder, [], source.damage, str(error)))
        else:
            twin = next((place for place, other in enumerate(found) if records and other.records == records), None)
            if twin is not None:
                found[twin] = found[twin]._replace(same=(*found[twin].same, kind))
            elif records or source.damage:
                found.append(Finding(kind, folder, records, source.damage))
    return found


def describe(finding: Finding) -> str:
    """Some lines for people."""
    lines = [f"{finding.kind} in {finding.folder}"]
    if finding.error:
        return "\n".join([*lines, f"  cannot be read: {finding.error}"])
    for split in (*dict.fromkeys(SPLIT_NAMES.values()), ALL):
        captions = [len(record.captions) for record in finding.records if record.split == split]
        if not captions:
            continue
        lines += [f"  {split:<10}{len(captions):>9,} images, {sum(captions):,} captions"]
    images = ""
    if finding.kind != CODES:
        paths = {record.path for record in finding.records}
        absent = [path for path in paths if not tars.is_file(path)]
        images = " --images FOLDER" if paths and len(absent) == len(paths) else ""
        bare = [path for path in find_images([finding.folder]) if path not in paths]
        groups = {"absent": sorted(map(str, absent)), "no caption": list(map(str, bare))}
        lines += [f"  {what:<10}{len(names):>9,} images: {listed(names)}" for what, names in groups.items() if names]
    if finding.damage:
        lines.append(f"  {'damaged':<10}{len(finding.damage):>9,} rows, which are left out:")
        lines += [f"    {row}" for row in finding.damage]
    same = f" ({', '.join(finding.same)} would be the same)" if finding.same else ""
    return "\n".join([*lines, f"  use it with --dataset {finding.kind}:{finding.folder}{images}{same}"])
