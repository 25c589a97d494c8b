"""How a checkpoint is given a classifier, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from captioner.errors import OptionError
from captioner.files import check_output
from captioner.options import check, option


@dataclass(frozen=True)
class ClassifierOptions:
    """What is given to which checkpoint; the command line makes its flags from these fields.

    Raises:
        OptionError: a value is out of range.
    """

    output: str = option(help="checkpoint to write", metavar="FILE")
    weights: str | None = option(None, "checkpoint to start from (default: the shipped one)", metavar="FILE")
    tag_threshold: float = option(
        0.3, "the checkpoint's default of captioner caption `tag_threshold`; 0 is off", low=0, high=1
    )
    device: str = option("auto", "cpu, cuda, mps or auto")
    precision: str = option("auto", "of encoding", choices=("auto", "fp32", "bf16"))
    cache: str = option("~/.cache/captioner", "folder that keeps the features of photos")

    def __post_init__(self) -> None:
        check(self)
        if not self.output.endswith(".safetensors"):
            raise OptionError(f"`output` must be a file name that ends in .safetensors, not {self.output!r}")
        check_output("output", str(Path(self.output).expanduser()))
