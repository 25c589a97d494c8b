"""What is kept of visitors' files on disk, of each visitor and in all, and what they are called."""

import time
from collections import Counter
from pathlib import Path

import orjson

KEPT = 3600
"""Seconds after which an upload is removed, and all that is remembered of a visitor who did nothing more."""


class Uploads:
    """The files that Gradio received: it would keep all of them (gradio-app/gradio#7517).

    It also calls them by their paths on the server, which gradio-app/gradio#13586 finds risky. To visitors they have
    no folders above their own.

    Args:
        folder: where Gradio puts them.
        by_visitor: bytes that are kept of a visitor; the oldest files go.
        in_all: bytes that are kept of all.
    """

    def __init__(self, folder: Path, by_visitor: int, in_all: int) -> None:
        self._folder, self._by_visitor, self._in_all = folder, by_visitor, in_all
        self._owners: dict[str, str] = {}
        self._long, self._short = f"{folder}/".encode(), f"{folder.name}/".encode()

    def note(self, visitor: str, answer: bytes) -> None:
        """Remember whose files these are, which the answer to an upload names."""
        if answer.startswith(b'["'):
            self._owners.update(dict.fromkeys(orjson.loads(answer), visitor))

    def hide(self, body: bytes) -> bytes:
        """Take the folders of this server out of an answer."""
        return body.replace(self._long, self._short)

    def find(self, body: bytes) -> bytes:
        """Put them into a request again; JSON may have its slashes escaped."""
        return body.replace(self._short.replace(b"/", b"\\/"), self._short).replace(self._short, self._long)

    def trim(self) -> None:
        """Remove what is old or too much."""
        files = [(path.lstat(), path) for path in self._folder.rglob("*") if path.is_file()]
        kept: Counter[str] = Counter()
        for stat, path in sorted(files, key=lambda pair: -pair[0].st_mtime):
            owner = self._owners.get(str(path), "")
            kept[owner] += stat.st_size
            much = sum(kept.values()) > self._in_all or (owner and kept[owner] > self._by_visitor)
            if much or time.time() - stat.st_mtime >= KEPT:
                path.unlink(missing_ok=True)
                kept[owner] -= stat.st_size
                self._owners.pop(str(path), None)
