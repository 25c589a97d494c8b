"""Which modules of the package a call passes."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def passed(modules: set[str]) -> Iterator[None]:
    """Collect the modules of which a function runs inside the block, in this thread and those that it starts.

    A module that is merely imported does not count.

    Args:
        modules: the names go here.
    """

    def note(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_globals.get("__name__", "")
        if event == "call" and name.startswith("captioner.") and frame.f_code.co_name != "<module>":
            modules.add(name)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # as its documentation says
