"""What an evaluation does besides scoring."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from captioner.errors import OptionError


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of an evaluation; the command line makes its flags from these fields.

    Raises:
        OptionError: a value is out of range.
    """

    subset: bool = _option(False, "score only the photos that the results file names")
    limit: int | None = _option(None, "caption and score only the first N photos")
    bootstrap: int = _option(1000, "resamples for the 95% intervals; 0 for none")
    meteor: bool = _option(True, "compute METEOR where Java and the package pycocoevalcap are there")

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"--limit must be at least 1, not {self.limit}")
        if self.bootstrap < 0:
            raise OptionError(f"--bootstrap must be at least 0, not {self.bootstrap}")
