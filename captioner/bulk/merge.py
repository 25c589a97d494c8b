"""Put the outputs of shards together: the bytes that one run over everything would have written.

Shards are consecutive parts of one list, so their outputs only have to follow each other in order. Their
journals tell the order, and whether something is missing; without journals the order given is taken.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from captioner.bulk.options import Shard
from captioner.bulk.output import differences, journal_of
from captioner.bulk.store import Journal
from captioner.bulk.writers import WRITERS, Csv, Html, Writer, encoded
from captioner.errors import OutputError, os_errors_as
from captioner.files import replacing

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Part:
    """The output of one shard.

    Attributes:
        path: its file.
        shard: which part of which whole; None if there is no journal.
        settings: what all parts must share.
    """

    path: Path
    shard: Shard | None
    settings: dict[str, object]


def merge(paths: Sequence[str], output: str, *, overwrite: bool = False) -> bool:
    """Write the outputs of shards into one file, whole or not at all.

    Args:
        paths: the shards; in order, unless their journals lie beside them.
        output: the file to write.
        overwrite: replace a file that is there.

    Returns:
        Whether journals have shown that nothing is missing and that the order is right.

    Raises:
        OutputError: something is missing, given twice, not finished, or does not fit together.
    """
    target = Path(output)
    _check_files([Path(path) for path in paths], target, overwrite=overwrite)
    parts = [_read_part(Path(path)) for path in paths]
    numbered = [(part.shard, part) for part in parts if part.shard is not None]
    checked = len(numbered) == len(parts)
    if checked:
        parts = _in_order(numbered)
    writer = _common_writer(parts)
    if isinstance(writer, Html):
        _check_folders(parts, target)
    with replacing(target) as merged:
        merged.write(encoded(writer.header))
        between = b""
        for part in parts:
            with _Body(part.path, writer) as body:
                for block in body:
                    merged.write(between + block)
                    between = b""
                if body.length:
                    between = encoded(writer.separator)
        merged.write(encoded(writer.footer))
    return checked


class _Body:
    """The records of a file, without what stands before and after them.

    Raises:
        OutputError: the file cannot be read, or is not whole.
    """

    def __init__(self, path: Path, writer: Writer) -> None:
        self._path = path
        self._header, self._footer = encoded(writer.header), encoded(writer.footer)
        self._grows = writer.grows
        self.length = 0

    def __enter__(self) -> _Body:
        with os_errors_as(OutputError, f"{self._path}: cannot be read (", ")"):
            self._file = self._path.open("rb")
            size = self._file.seek(0, os.SEEK_END)
            self.length = size - len(self._header) - len(self._footer)
            self._file.seek(max(0, size - max(1, len(self._footer))))
            end = self._file.read()
            self._file.seek(0)
            begins = self._file.read(len(self._header)) == self._header
        ends = end.endswith(b"\n") if self._grows else end == self._footer
        if not begins or self.length < 0 or (self.length and not ends):
            raise OutputError(f"{self._path}: its end is missing", "finish this shard first")
        return self

    def __iter__(self) -> Iterator[bytes]:
        rest = self.length
        while rest:
            with os_errors_as(OutputError, f"{self._path}: cannot be read (", ")"):
                block = self._file.read(min(rest, _BLOCK_BYTES))
            if not block:
                raise OutputError(f"{self._path}: was cut off while it was read")
            rest -= len(block)
            yield block

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _check_files(paths: Sequence[Path], target: Path, *, overwrite: bool) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        if not path.is_file():
            raise OutputError(f"{path}: " + ("is no regular file" if path.exists() else "no such file"))
        if seen.setdefault(os.path.realpath(path), path) is not path:
            raise OutputError(f"{path}: is given twice")
        if target.exists() and path.samefile(target):
            raise OutputError(f"`output` {target}: is one of the shards")
    if target.exists() and not overwrite:
        raise OutputError(f"`output` {target}: is there already", "`overwrite` replaces it")


def _check_folders(parts: Sequence[Part], target: Path) -> None:
    """See that links to images, which start at the sheet, lead from the new one to the same places.

    Raises:
        OutputError: they would not.
    """
    folder = Path(os.path.realpath(target)).parent
    for part in parts:
        has_links = "folder" in part.settings or not part.settings
        if has_links and Path(os.path.realpath(part.path)).parent != folder:
            raise OutputError(
                f"`output` {target}: must lie in the folder of {part.path}, because of its links to images"
            )


def _read_part(path: Path) -> Part:
    """A shard, with what its journal says.

    Raises:
        OutputError: it is not finished, or being written.
    """
    if not journal_of(path).exists():
        return Part(path, None, {})
    with closing(Journal(journal_of(path), new=False)) as journal:
        settings = dict(journal.settings or {})
        shard = settings.pop("shard", None)
        if journal.stale or journal.finished != journal.last_place():
            raise OutputError(f"{path}: is not finished", "give its command again")
    return Part(path, Shard.parse(str(shard)) if shard else Shard(1, 1), settings)


def _in_order(parts: Sequence[tuple[Shard, Part]]) -> list[Part]:
    """Shards by number, all of one whole.

    Raises:
        OutputError: one is missing, or they do not belong together.
    """
    whole, first = parts[0]
    by_number: dict[int, Part] = {}
    for shard, part in parts:
        if differing := differences(first.settings, part.settings):
            raise OutputError(f"{part.path}: does not go with {first.path}: {differing}")
        if shard.count != whole.count:
            raise OutputError(f"{part.path}: is one of {shard.count} shards, {first.path} of {whole.count}")
        if by_number.setdefault(shard.number, part) is not part:
            raise OutputError(f"{part.path} and {by_number[shard.number].path} are both shard {shard.number}")
    missing = [number for number in range(1, whole.count + 1) if number not in by_number]
    if missing:
        raise OutputError(f"{len(missing)} of {whole.count} shards are missing, such as {missing[0]}")
    return [by_number[number] for number in sorted(by_number)]


def _common_writer(parts: Sequence[Part]) -> Writer:
    kinds = {part.path: kind for part in parts if (kind := _kind_of(part)) is not None}
    if len(set(kinds.values())) > 1:
        (one, first), *others = kinds.items()
        other, second = next(item for item in others if item[1] != first)
        raise OutputError(f"{other}: is in the format {second}, {one} in {first}")
    return WRITERS[next(iter(kinds.values()), "text")]()


def _kind_of(part: Part) -> str | None:
    """The format of a file; None if it is empty, as that of a shard without images may be."""
    if part.settings:
        return str(part.settings["format"])
    with os_errors_as(OutputError, f"{part.path}: cannot be read (", ")"), part.path.open("rb") as file:
        head = file.read(len(Csv.header))
    if not head:
        return None
    if head == encoded(Csv.header):
        return "csv"
    return {b"{": "jsonl", b"[": "coco", b"<": "html"}.get(head[:1], "text")
