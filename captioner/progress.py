"""How far a long job is, on standard error: for people as a bar or a line now and then, for programs as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from captioner.options import with_flags

if TYPE_CHECKING:
    from captioner.images import find

Shown = Literal["bar", "lines", "json", "none"]

_SECONDS_BETWEEN = {"lines": 30.0, "json": 1.0}


class Progress:
    """Reports on standard error.

    Args:
        show: how the state of things is shown: a moving ``bar`` for terminals, ``lines`` every half minute, ``json``
            every second, or ``none``.
        summary: whether there is a last line.
    """

    def __init__(self, show: Shown = "none", *, summary: bool = False) -> None:
        self._show, self._summary = show, summary
        self._bar: Any = None
        self._total: int | None = None
        self._done = self._failed = self._skipped = 0
        self._start = self._reported = time.monotonic()
        self._said: set[str] | None = None

    def start(self, total: int | None, skipped: int = 0) -> None:
        """Begin to count.

        Args:
            total: images that are to be done; None while that is not known.
            skipped: images that need not be.
        """
        self.close()
        self._done = self._failed = 0
        self._start = self._reported = time.monotonic()
        self.expect(total, skipped)
        if self._show == "bar":
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=" images", file=sys.stderr, leave=False)
        elif self._show == "json":
            _print(self.state)

    def expect(self, total: int | None, skipped: int = 0) -> None:
        """Note how many there are, once that is known; see :meth:`start`."""
        self._total, self._skipped = total, skipped
        if self._bar is not None:
            self._bar.total = total
            self._bar.refresh()

    def advance(self, images: int, failed: int = 0) -> None:
        """Some more are done, of which some have failed."""
        self._done += images
        self._failed += failed
        now = time.monotonic()
        if self._bar is not None:
            if failed:
                self._bar.set_postfix_str(f"{self._failed:,} failed", refresh=False)
            self._bar.update(images)
        elif now - self._reported >= _SECONDS_BETWEEN.get(self._show, float("inf")):
            self._reported = now
            if self._show == "json":
                _print(self.state)
            else:
                self.say(self._line())

    @property
    def state(self) -> dict[str, int | float | None]:
        """How far it is, as ``--progress json`` has it."""
        rate = self._rate
        left = None if self._total is None else self._total - self._done
        return {
            "done": self._done,
            "total": self._total,
            "failed": self._failed,
            "skipped": self._skipped,
            "images_per_second": round(rate, 2) if rate else None,
            "seconds_left": round(left / rate, 1) if rate and left is not None else None,
        }

    def _line(self) -> str:
        of = "" if self._total is None else f" of {self._total:,}"
        parts = [f"{self._done:,}{of} images", f"{self._rate:.1f} images/s"]
        if self._total is not None and self._rate:
            parts.append(f"{_duration((self._total - self._done) / self._rate)} left")
        if self._failed:
            parts.append(f"{self._failed:,} failed")
        return ", ".join(parts)

    @property
    def _rate(self) -> float:
        return self._done / (self.seconds or float("inf"))

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def say(self, line: str) -> None:
        """Print a line, whatever is shown; options that it names get their flags."""
        line = with_flags(line)
        if self._said is not None:
            if line in self._said:
                return
            self._said.add(line)
        if self._bar is None:
            _print({"message": line} if self._show == "json" else f"captioner: {line}")
        else:
            with suppress(OSError):
                self._bar.write(f"captioner: {line}", file=sys.stderr)

    def say_once(self) -> None:
        """From now on, say no line a second time."""
        self._said = set()

    def summarise(self, summary: object) -> None:
        """Print the last line."""
        self.close()
        if self._show == "json":
            _print(self.state)
        if self._summary:
            self.say(str(summary))

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Progress:
        if self._show == "json":  # there is much to list, perhaps
            _print(self.state)
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True)
class Summary:
    """What became of the images of a run.

    Attributes:
        captioned: images that have got a caption.
        skipped: those that had one.
        failed: those that could not be captioned.
        remaining: those that are left.
        is_listed: whether these are all, or those that had been found when the run ended.
        interrupted: whether Ctrl-C was pressed.
        seconds: from the first image on; without loading the model.
        omitted: what was left out of folders and tars, or cannot be read at all.
    """

    captioned: int
    skipped: int
    failed: int
    remaining: int = 0
    is_listed: bool = True
    interrupted: bool = False
    seconds: float = 0.0
    omitted: find.Omitted | None = None

    def __str__(self) -> str:
        parts = [f"{self.captioned:,} captioned", f"{self.skipped:,} skipped", f"{self.failed:,} failed"]
        if self.remaining:
            parts.append(f"{'' if self.is_listed else 'at least '}{self.remaining:,} remaining")
        done = self.captioned + self.failed
        if done and self.seconds > 0:
            parts.append(f"{done / self.seconds:.1f} images/s")
        return ", ".join(filter(None, [*parts, str(self.omitted or "")]))


class Tally:
    """Counts what becomes of the images of a run, and has it shown.

    Attributes:
        due: images that are to be captioned.
        is_listed: whether these are all, or those that have been found so far.
        skipped: images that have their captions already.
        interrupted: whether Ctrl-C was pressed.
    """

    def __init__(self, progress: Progress, omitted: find.Omitted | None = None) -> None:
        self._progress, self._omitted = progress, omitted
        self.due = self.skipped = 0
        self.is_listed, self.interrupted = True, False
        self._captioned = self._failed = 0

    def interrupt(self) -> None:
        """Note that Ctrl-C was pressed."""
        self.interrupted = True

    def note(self, captioned: int, errors: Sequence[str]) -> None:
        """Some more are done: those that have got a caption, and what went wrong with the others."""
        for error in errors:
            self._progress.say(error)
        self._captioned += captioned
        self._failed += len(errors)
        self._progress.advance(captioned + len(errors), len(errors))

    @property
    def remaining(self) -> int:
        """Images that are due and are left."""
        return self.due - self._captioned - self._failed

    def summary(self) -> Summary:
        """What has become of them so far."""
        return Summary(
            self._captioned,
            self.skipped,
            self._failed,
            self.remaining,
            is_listed=self.is_listed,
            interrupted=self.interrupted,
            seconds=self._progress.seconds,
            omitted=self._omitted,
        )


def _print(line: str | dict[str, Any]) -> None:
    with suppress(OSError):  # that nobody reads it any more ends no job
        print(line if isinstance(line, str) else json.dumps(line), file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
