"""Shards of WebDataset and img2dataset: tars with an image and its caption under one name (``000001.jpg``, ``.txt``).

The caption is in ``.txt``, one a line, or else in ``.json`` under ``caption`` or the key that the options name. Images
stay in their tars and are read from there one by one, so any order costs the same. github.com/webdataset/webdataset,
github.com/rom1504/img2dataset
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from captioner import tars
from captioner.datasets.options import Source
from captioner.datasets.records import ALL, Record, split_in, split_of_folders, spoken
from captioner.errors import DatasetError, NoDatasetError
from captioner.images.find import IMAGE_EXTENSIONS

_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
_TEXTS, _KEYS = ("txt", "caption"), ("caption", "captions", "text")
_COMPRESSED = re.compile(r"\.(?:tar\.\w+|t(?:gz|xz|bz2?|zst))$", re.IGNORECASE)
_MOST_BYTES = 1 << 20  # of a caption with its metadata


def read(source: Source, split: str) -> list[Record]:
    """Records of one split in the order of the shards; the id is the path below the folder, the tar included.

    A shard in a folder ``train``, or with that word in its name, is of that split.

    Raises:
        DatasetError: there is no shard, or one cannot be opened.
    """
    place = source.captions_place()
    found = (path for path in place.glob("**/*.t*") if path.suffix == tars.SUFFIX or _COMPRESSED.search(path.name))
    shards = [place] if place.is_file() else sorted(filter(Path.is_file, found))
    if not shards:
        raise NoDatasetError(f"{place}: holds no *{tars.SUFFIX}")
    packed = [shard for shard in shards if _COMPRESSED.search(shard.name) or _is_compressed(shard)]
    source.damage.extend(f"{shard}: is compressed; decompress it, for images are read in place" for shard in packed)
    if len(packed) == len(shards):
        raise DatasetError(source.damage[0])
    root = place.parent if place.is_file() else place
    records: list[Record] = []
    for shard in (shard for shard in shards if shard not in packed):
        name = shard.relative_to(root).as_posix()
        own = split_of_folders(name)
        own = split_in(shard.stem.lower()) if own == ALL else own
        if split in (own, ALL) or own == ALL:
            records.extend(
                Record(f"{name}/{image}", shard / image, texts, own) for image, texts in _read(shard, source)
            )
    if not source.damage and not any(record.captions for record in records) and split == ALL:
        what = f"{place}: its tars hold no captions in .txt, in .caption, or as 'caption' in .json"
        raise DatasetError(what, "name another key of .json with `caption_column`")
    return source.divide(records, split)


def _is_compressed(shard: Path) -> bool:
    with suppress(OSError), shard.open("rb") as file:  # reading it says why it cannot be opened
        return bool(tars.compression(file.read(tars.FIRST_BYTES)))
    return False


def _read(shard: Path, source: Source) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The image of each sample of a tar and its captions; damaged samples are noted and left out."""
    try:
        parts, fault = tars.contents(shard)
        file = shard.open("rb")
    except OSError as error:
        raise DatasetError(f"{shard}: cannot be read ({error.strerror})") from error
    if fault:
        source.damage.append(f"{shard}: {fault}")
    samples: dict[str, dict[str, str]] = {}
    for name in parts:
        if found := _MEMBER.fullmatch(name):
            samples.setdefault(found[1], {}).setdefault(found[2].lower(), name)
    with file:
        for key, members in samples.items():
            images = [ending for ending in members if "." + ending.rpartition(".")[2] in IMAGE_EXTENSIONS]
            if not images:
                source.damage.append(f"{shard}/{key}: has no image")
                continue
            try:
                texts = _captions(file, {ending: parts[name] for ending, name in members.items()}, source)
            except (ValueError, RecursionError, OSError) as error:
                source.damage.append(f"{shard}/{key}: its caption cannot be read ({error})")
                continue
            # dog.mask.png is the image only if there is nothing like dog.jpg
            yield members[min(images, key=lambda ending: ending.count("."))], spoken(texts)


def _captions(file: BinaryIO, members: dict[str, tars.Part], source: Source) -> list[str]:
    """Captions of a sample.

    Raises:
        ValueError: they are not UTF-8, no JSON, no texts, or far too long.
    """
    endings = ("json",) if source.caption_column else (*_TEXTS, "json")
    for ending in endings:
        if ending not in members:
            continue
        part = members[ending]
        if part.size > _MOST_BYTES:
            raise ValueError(f"{part.size:,} bytes")
        file.seek(part.offset)
        text = file.read(part.size).decode("utf-8-sig")
        if ending != "json":
            return [line.strip() for line in text.splitlines()]
        values: Any = json.loads(text)
        keys = (source.caption_column,) if source.caption_column else _KEYS
        found: Any = next((values[key] for key in keys if key in values), []) if isinstance(values, dict) else []
        captions: list[str] = found if isinstance(found, list) else [found]
        if not all(isinstance(caption, str) for caption in captions):
            raise ValueError("it is no text")
        return captions
    return []
