"""How a checkpoint is given a classifier, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captioner.errors import OptionError
from captioner.files import check_output


def _option(default: Any, text: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True)
class ClassifierOptions:
    """What is given to which checkpoint; the command line makes its flags from these fields.

    Raises:
        OptionError: a value is out of range.
    """

    output: str = field(metadata={"help": "checkpoint to write", "metavar": "FILE"})
    weights: str | None = _option(None, "checkpoint to start from (default: the shipped one)", metavar="FILE")
    tag_threshold: float = _option(
        0.3, "the checkpoint's default of captioner caption --tag-threshold; 0 is off"
    )
    device: str = _option("auto", "cpu, cuda, mps or auto")
    precision: str = _option("auto", "of encoding", choices=("auto", "fp32", "bf16"))
    cache: str = _option("~/.cache/captioner", "folder that keeps the features of photos")

    def __post_init__(self) -> None:
        if not self.output.endswith(".safetensors"):
            raise OptionError(f"--output must be a file name that ends in .safetensors, not {self.output!r}")
        check_output("--output", str(Path(self.output).expanduser()))
        if not (math.isfinite(self.tag_threshold) and 0 <= self.tag_threshold <= 1):
            raise OptionError(f"--tag-threshold must be from 0 to 1, not {self.tag_threshold}")
