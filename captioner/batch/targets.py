"""What places for captions have in common, and the simplest one: standard output."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from captioner.batch.records import Entry, Line
from captioner.batch.settings import Settings
from captioner.batch.tars import Item
from captioner.batch.worklist import Key
from captioner.batch.writers import Writer


class State(enum.Enum):
    """What is to be done with a picture."""

    DUE = "caption"
    DONE = "skip"
    CHANGED = "caption anew"
    LEFT = "leave"  # the picture has changed, but its caption was edited by hand


class Target(Protocol):
    """Where captions go. The methods are called in this order."""

    def key(self, image: str) -> Key | None:
        """What only one picture may have, such as the file that its caption goes to; None for nothing."""

    def open(self, settings: Settings, *, overwrite: bool) -> None:
        """Look at what is there, without changing it.

        Raises:
            OutputError: this run cannot write there, or would mix its captions with others.
        """

    def state(self, item: Item) -> State:
        """What is to be done with a picture; asked for each in order, before anything is written.

        Raises:
            OutputError: as :meth:`open`.
        """

    def begin(self) -> None:
        """Make ready for writing."""

    def forget(self, images: Iterable[str]) -> None:
        """Drop what was written of failures that are no more, such as a tar that was missing."""

    def captions_of(self, digest: bytes) -> tuple[Line, ...] | None:
        """Captions of a file with this content, if there are any."""

    def write(self, entries: Sequence[Entry]) -> list[Entry]:
        """Write a batch, so that it survives the process.

        Returns:
            The entries as they were written; some may have failed on the way.

        Raises:
            OutputError: the disk is full, or the like.
        """

    def finish(self, images: Iterable[str], *, complete: bool) -> None:
        """Make the output whole.

        Args:
            images: all pictures of the run, in order.
            complete: all of them have been written.
        """

    def close(self) -> None:
        """Let others have it; also called after failures, and before :meth:`begin`."""


class StandardOutput:
    """Prints records as they come, and remembers nothing."""

    def __init__(self, writer: Writer, number: Callable[[str], int | None]) -> None:
        self._writer, self.key = writer, number
        self._separator = ""

    def open(self, settings: Settings, *, overwrite: bool) -> None:
        """See :class:`Target`."""

    def state(self, item: Item) -> State:
        """See :class:`Target`."""
        return State.DUE

    def begin(self) -> None:
        """See :class:`Target`."""
        self._print(self._writer.header)

    def forget(self, images: Iterable[str]) -> None:
        """See :class:`Target`."""

    def captions_of(self, digest: bytes) -> None:
        """See :class:`Target`."""

    def write(self, entries: Sequence[Entry]) -> list[Entry]:
        """See :class:`Target`."""
        for entry in entries:
            if record := self._writer.record(entry):
                self._print(self._separator + record)
                self._separator = self._writer.separator
        sys.stdout.flush()
        return list(entries)

    def finish(self, images: Iterable[str], *, complete: bool) -> None:
        """See :class:`Target`."""
        self._print(self._writer.footer)

    def close(self) -> None:
        """See :class:`Target`."""

    def _print(self, text: str) -> None:
        sys.stdout.write(text)
