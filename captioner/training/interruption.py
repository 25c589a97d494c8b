"""Ctrl-C that lets the step in hand finish."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NOTICE = b"\nfinishing this step and saving; Ctrl-C again breaks off without saving\n"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training, in a run that can be resumed; the message says what is saved."""


@contextmanager
def on_interrupt(note: Callable[[], None]) -> Iterator[None]:
    """Call ``note`` at the first Ctrl-C instead of breaking off; a second one breaks off."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        # The signal may have come while Python was writing to stderr, which must not be entered twice.
        os.write(2, _NOTICE)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        note()

    try:
        previous = signal.signal(signal.SIGINT, handle)
    except ValueError:  # not in the main thread, where signals do not arrive either
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
