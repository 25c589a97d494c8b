"""What is measured, and where the figures go, as data."""

from dataclasses import dataclass
from pathlib import Path

from captioner.errors import OptionError
from captioner.files import PLOT_SUFFIXES, check_output
from captioner.model.config import CELLS, NONLINEARITIES
from captioner.options import check, option

NO_PLOT = "none"


@dataclass(frozen=True)
class GradientOptions:
    """Options of the measurement; the command line makes its flags from these fields.

    Raises:
        OptionError: a value is out of range, or has no effect beside the others.
    """

    cell: tuple[str, ...] = option(
        (), f"fresh cells to measure: {', '.join(CELLS)} (default: all of them, unless there are `weights`)"
    )
    weights: tuple[str, ...] = option((), "trained checkpoints to measure")
    # The upper bounds are far beyond what anybody looks at, and small enough for the memory of a laptop.
    hidden_size: int = option(256, "length of the state of fresh cells", low=1, high=4096)
    nonlinearity: str = option("tanh", "of the fresh cell rnn", choices=NONLINEARITIES)
    gain: float | None = option(
        None, "recurrent matrices of fresh cells are random rotations times this, instead of their usual start", above=0
    )
    length: int = option(30, "words of a sequence; the loss is that of the last", low=1, high=500)
    sequences: int = option(64, "sequences to take the mean over", low=1, high=10_000)
    seed: int = option(0, "of weights, states and words", low=0, high=(1 << 31) - 1)
    cache: str = option("~/.cache/captioner", "folder that keeps the features of images of `dataset`")
    output: str = option("gradients.csv", "file for the figures")
    plot: str = option("gradients.png", f"file for the plot, or {NO_PLOT}")

    def __post_init__(self) -> None:
        for name in self.cell:
            if name not in CELLS:
                raise OptionError(f"`cell` must be one of {', '.join(CELLS)}, not {name!r}")
        check(self)
        if self.nonlinearity != "tanh" and "rnn" not in self.fresh:
            raise OptionError("`nonlinearity` is a choice of the fresh cell rnn", "name it with `cell`")
        if self.gain is not None and not self.fresh:
            raise OptionError("`gain` is for fresh cells", "name them with `cell`")
        if self.plot != NO_PLOT and Path(self.plot).suffix.lower() not in PLOT_SUFFIXES:
            raise OptionError(f"`plot` must end in {', '.join(PLOT_SUFFIXES)} or be {NO_PLOT}, not {self.plot!r}")
        if self.output == self.plot:
            raise OptionError(f"`output` and `plot` are one file, {self.output}")
        check_output("output", self.output)
        check_output("plot", None if self.plot == NO_PLOT else self.plot)

    @property
    def fresh(self) -> tuple[str, ...]:
        """Names of the fresh cells to measure, each once."""
        if not self.cell and not self.weights:
            return CELLS
        return tuple(dict.fromkeys(self.cell))
