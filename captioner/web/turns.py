"""Which of a visitor's requests came last."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Turns:
    """Numbers a visitor's requests. Answers may overtake each other, and only that to the last one counts."""

    last: int = 0

    def take(self) -> int:
        """The number of a new request."""
        self.last += 1
        return self.last
