"""What a run says of itself on standard error: a bar or a line now and then, failures, and a summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

_SECONDS_BETWEEN_LINES = 30


@dataclass(frozen=True)
class Summary:
    """What became of the images of a run.

    Attributes:
        captioned: images that have got a caption.
        skipped: those that had one.
        failed: those that could not be captioned.
        remaining: those that were not come to.
        interrupted: whether Ctrl-C ended the run.
        seconds: from the first image on; without loading the model.
    """

    captioned: int
    skipped: int
    failed: int
    remaining: int = 0
    interrupted: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        parts = [f"{self.captioned:,} captioned", f"{self.skipped:,} skipped", f"{self.failed:,} failed"]
        if self.remaining:
            parts.append(f"{self.remaining:,} not come to")
        done = self.captioned + self.failed
        if done and self.seconds > 0:
            parts.append(f"{done / self.seconds:.1f} images/s")
        return ", ".join(parts)


class Progress:
    """Reports on standard error.

    Args:
        show: how the state of things is shown: a moving ``bar`` for terminals, ``lines`` now and then, or
            ``nothing``.
        summary: whether there is a last line.
    """

    def __init__(self, show: Literal["bar", "lines", "nothing"] = "nothing", *, summary: bool = False) -> None:
        self._show, self._summary = show, summary
        self._bar: Any = None
        self._total = self._done = 0
        self._start = self._told = time.monotonic()

    def start(self, total: int) -> None:
        """Begin to count, up to a number of images."""
        self._total, self._done = total, 0
        self._start = self._told = time.monotonic()
        if self._show == "bar":
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=" images", file=sys.stderr, leave=False)

    def advance(self, images: int) -> None:
        """Some more are done."""
        self._done += images
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(images)
        elif self._show == "lines" and now - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = now
            rate = self._done / (now - self._start)
            left = _duration((self._total - self._done) / rate)
            self.say(f"{self._done:,} of {self._total:,} images, {rate:.1f} images/s, {left} left")

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def say(self, line: str) -> None:
        """Print a line, whatever is shown."""
        line = f"captioner: {line}"
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bar.write(line, file=sys.stderr)

    def summarise(self, summary: Summary) -> None:
        """Print the last line."""
        self.close()
        if self._summary:
            self.say(str(summary))

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Tally:
    """Counts what becomes of the images of a run.

    Args:
        progress: is told of each failure, and of each image that is done.

    Attributes:
        due: images that are to be captioned.
        skipped: images that have their captions already.
        interrupted: whether Ctrl-C was pressed.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.due = self.skipped = 0
        self.interrupted = False
        self._captioned = self._failed = 0

    def interrupt(self) -> None:
        """Ctrl-C was pressed."""
        self.interrupted = True

    def note(self, captioned: int, errors: Sequence[str]) -> None:
        """Some more are done: those that have got a caption, and what went wrong with the others."""
        for error in errors:
            self._progress.say(error)
        self._captioned += captioned
        self._failed += len(errors)
        self._progress.advance(captioned + len(errors))

    @property
    def remaining(self) -> int:
        """Images that are due and were not come to."""
        return self.due - self._captioned - self._failed

    def summary(self) -> Summary:
        """What has become of them so far."""
        return Summary(
            self._captioned,
            self.skipped,
            self._failed,
            self.remaining,
            interrupted=self.interrupted and self.remaining > 0,
            seconds=self._progress.seconds,
        )


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
