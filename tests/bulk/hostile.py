"""A reader whose codec crashes. Imports no torch, since the processes that read import this."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from captioner.images.reading import ImageReader, Loaded


@dataclass(frozen=True)
class Hostile(ImageReader):
    """Crashes on some images, and on others only the first time."""

    def __call__(self, path: Path) -> Loaded:
        if path.name.startswith("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if path.name.startswith("once") and not path.with_suffix(".seen").exists():
            path.with_suffix(".seen").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if path.name.startswith("print"):
            print("a library says hello", flush=True)
            os.write(2, b"Fax4Decode: a library complains\n")
        if path.name.startswith("wrong"):
            raise ZeroDivisionError("a mistake of ours")
        return super().__call__(path)
