"""Many pictures: caption them in order while the visitor watches, edits and perhaps stops."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.errors import CaptionerError
from captioner.web.archive import Found, find_uploads
from captioner.web.messages import for_visitor
from captioner.web.samples import thumbnail
from captioner.web.settings import Settings

if TYPE_CHECKING:
    from captioner.web.service import Service

_AT_ONCE = 4  # pictures of one visitor that are under way together
_REPORT = 0.4  # seconds between two reports, and more the more there is to show
_REPORT_MORE = 0.004  # seconds a picture
_THUMBNAIL = 240  # pixels
_LONGEST_CAPTION = 1000  # characters


@dataclass
class Item:
    """A picture and what became of it.

    Attributes:
        name: as the visitor knows it.
        caption: the sentence, perhaps edited; empty if the picture failed.
        log_prob: natural logarithm of P(caption | picture); None if it failed or was edited.
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
    """A visitor's pictures; filled by :func:`caption_album` while other events read and edit it.

    Attributes:
        items: those that are done, in the order of the upload.
        total: how many there will be.
        seconds: how long it took so far.
        running: whether pictures are being captioned.
        stopping: set by the visitor: no further picture is begun.
    """

    items: list[Item] = field(default_factory=list)
    total: int = 0
    seconds: float = 0.0
    running: bool = False
    stopping: bool = False

    @property
    def captioned(self) -> list[Item]:
        """The pictures that have a caption."""
        return [item for item in self.items if item.error is None]

    @property
    def broken(self) -> list[Item]:
        """The pictures that have none."""
        return [item for item in self.items if item.error is not None]

    @property
    def speed(self) -> float:
        """Pictures a second."""
        return len(self.items) / self.seconds if self.seconds > 0 else 0.0

    def edit(self, index: int, text: str) -> None:
        """Give a picture another caption.

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
    """Caption uploaded files and the pictures in uploaded archives.

    A picture that cannot be read becomes an item with an error, and the others go on.

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
        raise CaptionerError("choose some pictures or a zip archive first")
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
