"""Ctrl-C that lets the step in hand finish."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_NOTICE = b"\nfinishing this step and saving; Ctrl-C again breaks off without saving\n"
_NOTICE_TO_SEVERAL = (
    b"\nasked to stop, or another process of this run has ended; finishing this step and saving, so that the "
    b"same command with --resume goes on\n"
)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training, in a run that can be resumed; the message says what is saved."""


@contextmanager
def on_interrupt(
    note: Callable[[], None], *, notice: bytes = _NOTICE, several: bool = False, quiet: bool = False
) -> Iterator[None]:
    """Call ``note`` at the first Ctrl-C instead of breaking off; a second one breaks off.

    Args:
        note: called in the main thread.
        notice: what a person at the keyboard reads.
        several: this is one of several processes under ``torchrun``. It passes SIGINT and SIGTERM on, and
            kills what has not ended half a minute later, so that no second signal is needed; none counts.
        quiet: say nothing; another process does.
    """
    said = _NOTICE_TO_SEVERAL if several else notice
    numbers = (signal.SIGINT, signal.SIGTERM) if several else (signal.SIGINT,)

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if not quiet:
            with suppress(OSError):  # who reads it may have ended with the same Ctrl-C
                os.write(2, said)  # no print: Python may be writing there, which must not be entered twice
        for number in numbers:
            signal.signal(number, signal.SIG_IGN if several else signal.default_int_handler)
        note()

    try:
        previous = [(number, signal.signal(number, handle)) for number in numbers]
    except ValueError:  # not in the main thread, where signals do not arrive either
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous:
            if signal.getsignal(number) != signal.SIG_IGN:  # else the process is about to end
                signal.signal(number, handler)
