"""Options of an evaluation and of a calibration."""

from dataclasses import dataclass
from pathlib import Path

from captioner.errors import OptionError
from captioner.files import PLOT_SUFFIXES, check_output, check_plotting
from captioner.options import check, option


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of an evaluation; the command line makes its flags from these fields.

    Raises:
        OptionError: a value is out of range.
    """

    subset: bool = option(False, "score only the images that the results file names")
    limit: int | None = option(None, "caption and score only the first N images", low=1)
    bootstrap: int = option(1000, "resamples for the 95% intervals; 0 for none", low=0)
    meteor: bool = option(True, "compute METEOR where Java and the package pycocoevalcap are there")

    spice: bool = option(
        False, "compute SPICE, which takes minutes, needs Java 8, and first fetches Stanford's parser (pycocoevalcap)"
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class CalibrationOptions:
    """Options of a calibration; each field is a command-line flag.

    Raises:
        OptionError: a file cannot be written, or plots cannot be drawn.
    """

    output: str | None = option(
        None, "write the calibrated checkpoint here (default: replace `weights`)", metavar="FILE"
    )
    plot: str | None = option(None, "draw how confidence and outcome agree, cross-validated", metavar="FILE")

    def __post_init__(self) -> None:
        """Check the files."""
        check_output("output", self.output)
        check_output("plot", self.plot)
        if self.plot is None:
            return
        if Path(self.plot).suffix.lower() not in PLOT_SUFFIXES:
            raise OptionError(f"`plot` must end in {', '.join(PLOT_SUFFIXES)}, not {self.plot!r}")
        if self.plot == self.output:
            raise OptionError(f"`output` and `plot` are one file, {self.output}")
        check_plotting("leave out `plot`")
