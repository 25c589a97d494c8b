"""What is measured, and where the figures go, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captioner.errors import OptionError
from captioner.files import check_output
from captioner.model.config import CELLS, NONLINEARITIES
from captioner.plots import PLOT_SUFFIXES

NO_PLOT = "none"

# Far beyond what anybody looks at, and small enough for the memory of a laptop.
_MOST = {"hidden_size": 4096, "length": 500, "sequences": 10_000, "seed": (1 << 31) - 1}


def _option(default: Any, text: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True)
class GradientOptions:
    """Options of the measurement; the command line makes its flags from these fields.

    Raises:
        OptionError: a value is out of range, or has no effect beside the others.
    """

    cell: tuple[str, ...] = _option(
        (), f"fresh cells to measure: {', '.join(CELLS)} (default: all of them, unless there are --weights)"
    )
    weights: tuple[str, ...] = _option((), "trained checkpoints to measure")
    hidden_size: int = _option(256, "length of the state of fresh cells")
    nonlinearity: str = _option("tanh", "of the fresh cell rnn", choices=NONLINEARITIES)
    gain: float | None = _option(
        None,
        "recurrent matrices of fresh cells are random rotations times this, instead of their usual start",
    )
    length: int = _option(30, "words of a sequence; the loss is that of the last")
    sequences: int = _option(64, "sequences to take the mean over")
    seed: int = _option(0, "of weights, states and words")
    cache: str = _option("~/.cache/captioner", "folder that keeps the features of photos of --dataset")
    output: str = _option("gradients.csv", "file for the figures")
    plot: str = _option("gradients.png", f"file for the plot, or {NO_PLOT}")

    def __post_init__(self) -> None:
        for name in self.cell:
            if name not in CELLS:
                raise OptionError(f"--cell must be one of {', '.join(CELLS)}, not {name!r}")
        for name, most in _MOST.items():
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if type(value) is not int or not least <= value <= most:
                flag = name.replace("_", "-")
                raise OptionError(f"--{flag} must be a whole number from {least} to {most}, not {value!r}")
        if self.nonlinearity not in NONLINEARITIES:
            raise OptionError(
                f"--nonlinearity must be {' or '.join(NONLINEARITIES)}, not {self.nonlinearity!r}"
            )
        if self.nonlinearity != "tanh" and "rnn" not in self.fresh:
            raise OptionError("--nonlinearity is a choice of the fresh cell rnn; name it with --cell")
        if self.gain is not None and not (self.fresh and 0 < self.gain < math.inf):
            raise OptionError("--gain is a number above 0 for fresh cells; name them with --cell")
        self._check_files()

    def _check_files(self) -> None:
        if self.plot != NO_PLOT and Path(self.plot).suffix.lower() not in PLOT_SUFFIXES:
            raise OptionError(
                f"--plot must end in {', '.join(PLOT_SUFFIXES)} or be {NO_PLOT}, not {self.plot!r}"
            )
        if self.output == self.plot:
            raise OptionError(f"--output and --plot are one file, {self.output}")
        check_output("--output", self.output)
        check_output("--plot", None if self.plot == NO_PLOT else self.plot)

    @property
    def fresh(self) -> tuple[str, ...]:
        """Names of the fresh cells to measure, each once."""
        if not self.cell and not self.weights:
            return CELLS
        return tuple(dict.fromkeys(self.cell))
