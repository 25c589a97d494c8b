"""Many images: caption them in order while the visitor watches, edits and perhaps stops."""

from __future__ import annotations

import csv
import io
import json
import re
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from captioner.errors import CaptionerError
from captioner.web.archive import Found, find_uploads
from captioner.web.messages import for_visitor
from captioner.web.render import thumbnail
from captioner.web.settings import Settings

if TYPE_CHECKING:
    from captioner.web.service import Service


_AT_ONCE = 4  # images of one visitor that are under way together
_REPORT = 0.4  # seconds between two reports, and more the more there is to show
_REPORT_MORE = 0.004  # seconds an image
_THUMBNAIL = 240  # pixels
_LONGEST_CAPTION = 1000  # characters


@dataclass
class Item:
    """An image and what became of it.

    Attributes:
        name: as the visitor knows it.
        caption: the sentence, perhaps edited; empty if the image failed.
        log_prob: natural logarithm of P(caption | image); None if it failed or was edited.
        thumbnail: a small JPEG as ``data:`` address.
        error: why it failed; None if it did not.
    """

    name: str
    caption: str = ""
    log_prob: float | None = None
    thumbnail: str = ""
    error: str | None = None


@dataclass
class Album:
    """A visitor's images; filled by :func:`caption_album` while other events read and edit it.

    Attributes:
        items: those that are done, in the order of the upload.
        total: how many there will be.
        seconds: how long it took so far.
        running: whether images are being captioned.
        stopping: set by the visitor: no further image is begun.
    """

    items: list[Item] = field(default_factory=list)
    total: int = 0
    seconds: float = 0.0
    running: bool = False
    stopping: bool = False

    @property
    def captioned(self) -> list[Item]:
        """The images that have a caption."""
        return [item for item in self.items if item.error is None]

    @property
    def broken(self) -> list[Item]:
        """The images that have none."""
        return [item for item in self.items if item.error is not None]

    @property
    def speed(self) -> float:
        """Images a second."""
        return len(self.items) / self.seconds if self.seconds > 0 else 0.0

    def edit(self, index: int, text: str) -> None:
        """Give an image another caption.

        Args:
            index: its place in ``items``; one that is not there is ignored.
            text: the caption; becomes one line.
        """
        if not 0 <= index < len(self.items) or self.items[index].error is not None:
            return
        line = " ".join(text[:_LONGEST_CAPTION].split())
        line = "".join(character for character in line if character.isprintable())
        item = self.items[index]
        if line != item.caption:
            item.caption, item.log_prob = line, None


def caption_album(
    service: Service,
    album: Album,
    uploads: Sequence[tuple[Path, str]],
    settings: Settings,
    weights: str | None = None,
) -> Iterator[None]:
    """Caption uploaded files and the images in uploaded archives.

    An image that cannot be read becomes an item with an error, and the others go on.

    Args:
        service: the model.
        album: is emptied, then filled in the order of the upload.
        uploads: where each file lies, and its name.
        settings: the visitor's choices.
        weights: by name; the default ones if absent.

    Yields:
        Now and then, for the visitor to be told; the last time when all is done.

    Raises:
        CaptionerError: there is nothing to caption, too much of it, or the model cannot be loaded.
    """
    album.items, album.total, album.seconds = [], 0, 0.0
    if not uploads:
        raise CaptionerError("choose some images or a zip archive first")
    waiting = deque(find_uploads(uploads))
    options = settings.options(service.options(weights))

    def caption(found: Found) -> Item:
        try:
            data = found.read()
            encoded = service.encode(data, name=found.name, weights=weights, remember=False)
            best = service.caption(encoded, options)[0]
            return Item(found.name, best.text, best.log_prob, thumbnail(data, _THUMBNAIL))
        except Exception as error:
            return Item(found.name, error=for_visitor(error))

    album.total, album.running, album.stopping = len(waiting), True, False
    start = reported = time.monotonic()
    under_way: deque[Future[Item]] = deque()
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while under_way or (waiting and not album.stopping):
                while waiting and len(under_way) < _AT_ONCE and not album.stopping:
                    under_way.append(pool.submit(caption, waiting.popleft()))
                album.items.append(under_way.popleft().result())
                album.seconds = time.monotonic() - start
                if time.monotonic() - reported >= _REPORT + _REPORT_MORE * len(album.items):
                    reported = time.monotonic()
                    yield
    finally:
        album.running = False
    yield


_COCO_NAME = re.compile(r"(?:COCO_\w+_)?0*(\d{1,12})")


class Download(NamedTuple):
    """A file to save.

    Attributes:
        name: what it is called.
        kind: media type.
        data: its bytes.
    """

    name: str
    kind: str
    data: bytes


def as_csv(items: Sequence[Item]) -> Download:
    """Columns ``image`` and ``caption``, as ``captioner train`` reads them; broken images are left out."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("image", "caption"))
    writer.writerows((item.name, item.caption) for item in items if item.error is None)
    return Download("captions.csv", "text/csv", text.getvalue().encode())


def as_jsonl(items: Sequence[Item]) -> Download:
    """One record a line, as ``captioner caption --format jsonl`` writes them, errors included."""
    lines = "".join(json.dumps(_record(item), ensure_ascii=False) + "\n" for item in items)
    return Download("captions.jsonl", "application/jsonl", lines.encode())


def _record(item: Item) -> dict[str, object]:
    if item.error is not None:
        return {"image": item.name, "error": item.error}
    record: dict[str, object] = {"image": item.name, "caption": item.caption}
    if item.log_prob is None:  # the number would be that of another sentence
        return record | {"edited": True}
    return record | {"log_prob": item.log_prob}


def as_coco(items: Sequence[Item]) -> Download:
    """COCO results. Ids are the numbers in the names if all names are COCO's, or else count from 1."""
    captioned = [item for item in items if item.error is None]
    matches = [_COCO_NAME.fullmatch(_stem(item.name).rpartition("/")[2]) for item in captioned]
    ids = [int(match[1]) for match in matches if match]
    if len(set(ids)) < len(captioned):
        ids = list(range(1, len(captioned) + 1))
    records = [
        {"image_id": image_id, "caption": item.caption, "file_name": item.name}
        for image_id, item in zip(ids, captioned, strict=True)
    ]
    text = json.dumps(records, ensure_ascii=False, indent=1) + "\n"
    return Download("captions.json", "application/json", text.encode())


def as_sidecars(items: Sequence[Item]) -> Download:
    """A zip with ``image.txt`` for ``photo.jpg``; of two with one name the second gets a number."""
    buffer = io.BytesIO()
    taken: set[str] = set()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in items:
            if item.error is not None:
                continue
            stem = _stem(item.name)
            name, number = f"{stem}.txt", 2
            while name in taken:
                name, number = f"{stem} ({number}).txt", number + 1
            taken.add(name)
            archive.writestr(name, item.caption + "\n")
    return Download("captions.zip", "application/zip", buffer.getvalue())


def _stem(name: str) -> str:
    """A name without its extension; names of visitors may be anything, so :mod:`pathlib` would stumble."""
    before, dot, _ = name.rpartition(".")
    return before if dot and not before.endswith("/") and before else name


FORMATS: dict[str, Callable[[Sequence[Item]], Download]] = {
    "CSV": as_csv,
    "JSON Lines": as_jsonl,
    "COCO JSON": as_coco,
    "Text files (zip)": as_sidecars,
}
"""Formats by the name that a visitor reads."""
