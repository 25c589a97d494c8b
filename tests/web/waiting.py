"""A service that is busy for as long as a test wants it to be."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

from captioner.web.service import Service


class Narrow:
    """A service in which one image is captioned at a time and one may wait; it begins when it is told to."""

    def __init__(self, checkpoint_file: Path) -> None:
        self.service = Service(checkpoint_file, device="cpu", max_batch_size=1, queue_size=1)
        self.service.models.start()
        self.service.models.load()
        self._begun, self._may_go_on = Event(), Event()
        tasks: Any = self.service._tasks
        compute = tasks._compute

        def held(model: Any, images: Sequence[Any]) -> Any:
            self._begun.set()
            self._may_go_on.wait()
            return compute(model, images)

        tasks._compute = held
        tasks._workers = lambda model: 1

    def go_on(self) -> None:
        """Let it work."""
        self._may_go_on.set()

    def wait_until_busy(self, waiting: int) -> None:
        """Wait until it has begun an image, and others wait."""
        assert self._begun.wait(60)
        end = time.monotonic() + 60
        while self.service.waiting != waiting:
            assert time.monotonic() < end
            time.sleep(0.01)
