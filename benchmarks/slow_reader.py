"""Readers of images that wait before each file, as behind a slow disk; imported by the processes that read."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from captioner.images.reading import ImageReader, Loaded


@dataclass(frozen=True)
class SlowReader(ImageReader):
    """Waits so many seconds before it opens a file."""

    seconds: float = 0.0

    def __call__(self, item: Any) -> Loaded:
        """Wait, then read an image."""
        time.sleep(self.seconds)
        return super().__call__(item)
