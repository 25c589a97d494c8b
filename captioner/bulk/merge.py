"""Put the outputs of shards together: the bytes that one run over everything would have written.

Shards are consecutive parts of one list, so their outputs only have to follow each other in order. Their stores hold
the order, and show whether something is missing. They become one store, with which a run over everything goes on.
Without stores the order given is taken.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from captioner import writers
from captioner.bulk.options import Shard
from captioner.bulk.output import BLOCK_BYTES, OF_SHARDS, copied, differences, is_as_noted
from captioner.bulk.store import Store, remove_store, store_of
from captioner.errors import OutputError, os_errors_as
from captioner.files import replacing


class _Part(NamedTuple):
    """The output of one shard."""

    path: Path
    shard: Shard | None  # None if there is no store
    settings: dict[str, object]  # what all parts must share
    is_own: bool = False  # as it was written, without corrections by hand


def merge(paths: Sequence[str], output: str, *, overwrite: bool = False) -> bool:
    """Write the outputs of shards into one file, whole or not at all, and their stores into one beside it.

    Args:
        paths: the shards; in order, unless their stores lie beside them.
        output: the file to write.
        overwrite: replace a file that is there.

    Returns:
        Whether stores have shown that nothing is missing and that the order is right.

    Raises:
        OutputError: something is missing, given twice, not finished, or does not fit together.
    """
    target = Path(os.path.realpath(output))
    _check_files([Path(path) for path in paths], Path(output), overwrite=overwrite)
    parts = [_read_part(Path(path)) for path in paths]
    numbered = [(part.shard, part) for part in parts if part.shard is not None]
    checked = len(numbered) == len(parts)
    if checked:
        parts = _in_order(numbered)
    writer = _common_writer(parts)
    if isinstance(writer, writers.Html):
        _check_folders(parts, Path(output))
    joined = target.with_name(f".captioner-{os.getpid()}.journal")
    is_whole = checked and all(part.is_own for part in parts)
    try:
        with _joined_store(parts, joined) if is_whole else nullcontext() as store:
            with replacing(target) as merged:
                noted = copied(_pieces(parts, writer), merged.write)
            remove_store(store_of(target))
            if store is not None:
                store.note(**noted, modified=target.stat().st_mtime_ns)
        if is_whole:
            joined.replace(store_of(target))
    finally:
        remove_store(joined)
    return checked


@contextmanager
def _joined_store(parts: Sequence[_Part], path: Path) -> Iterator[Store]:
    """One store of all, not yet under its name."""
    remove_store(path)
    whole = {name: value for name, value in parts[0].settings.items() if name not in OF_SHARDS}
    with closing(Store(path, new=True)) as store:
        store.anew(whole, stale=False, finished=True)
        store.begin()
        store.absorb(part.path for part in parts)
        yield store


def _pieces(parts: Sequence[_Part], writer: writers.Writer) -> Iterator[bytes]:
    """The whole file, block by block."""
    yield writers.encoded(writer.header)
    between = b""
    for part in parts:
        before = between
        for block in _body(part.path, writer):
            yield before + block
            before, between = b"", writers.encoded(writer.separator)
    yield writers.encoded(writer.footer)


def _body(path: Path, writer: writers.Writer) -> Iterator[bytes]:
    """Yield the records of a whole file, block by block, without what stands before and after them."""
    header, footer = writers.encoded(writer.header), writers.encoded(writer.footer)
    with os_errors_as(OutputError, f"{path}: cannot be read (", ")"), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        rest = size - len(header) - len(footer)
        file.seek(max(0, size - max(1, len(footer))))
        end = file.read()
        file.seek(0)
        begins = file.read(len(header)) == header
        ends = end.endswith(b"\n") if writer.grows else end == footer
        if not begins or rest < 0 or (rest and not ends):
            raise OutputError(f"{path}: its end is missing", "finish this shard first")
        while rest:
            block = file.read(min(rest, BLOCK_BYTES))
            if not block:
                raise OutputError(f"{path}: was cut off while it was read")
            rest -= len(block)
            yield block


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


def _check_folders(parts: Sequence[_Part], target: Path) -> None:
    """Check that links to images, which start at the sheet, lead from the new one to the same places."""
    folder = Path(os.path.realpath(target)).parent
    for part in parts:
        has_links = "folder" in part.settings or not part.settings
        if has_links and Path(os.path.realpath(part.path)).parent != folder:
            where = f"the folder of {part.path}"
            raise OutputError(f"`output` {target}: must lie in {where}, because of its links to images")


def _read_part(path: Path) -> _Part:
    """A shard, with what its store says; refuse one that is not finished, or being written."""
    if not store_of(path).exists():
        return _Part(path, None, {})
    with closing(Store(store_of(path))) as store:
        state = store.state
        settings = dict(state.get("settings") or {})
        shard = settings.pop("shard", None)
        if state.get("stale") or not state.get("finished"):
            raise OutputError(f"{path}: is not finished", "give its command again")
        whole = Shard.parse(str(shard)) if shard else Shard(1, 1)
        return _Part(path, whole, settings, is_own=is_as_noted(path, state))


def _in_order(parts: Sequence[tuple[Shard, _Part]]) -> list[_Part]:
    """Shards by number; refuse them where one is missing, or they do not belong together."""
    whole, first = parts[0]
    by_number: dict[int, _Part] = {}
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


def _common_writer(parts: Sequence[_Part]) -> writers.Writer:
    kinds = {part.path: kind for part in parts if (kind := _kind_of(part)) is not None}
    if len(set(kinds.values())) > 1:
        (one, first), *others = kinds.items()
        other, second = next(item for item in others if item[1] != first)
        raise OutputError(f"{other}: is in the format {second}, {one} in {first}")
    return writers.WRITERS[next(iter(kinds.values()), "text")]()


def _kind_of(part: _Part) -> str | None:
    """The format of a file; None if it is empty, as that of a shard without images may be."""
    if part.settings:
        return str(part.settings["format"])
    with os_errors_as(OutputError, f"{part.path}: cannot be read (", ")"), part.path.open("rb") as file:
        head = file.read(len(writers.Csv.header))
    if not head:
        return None
    if head == writers.encoded(writers.Csv.header):
        return "csv"
    return {b"{": "jsonl", b"[": "coco", b"<": "html"}.get(head[:1], "text")
