"""Where the figures of a calibration go, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from captioner.errors import OptionError
from captioner.files import check_output
from captioner.options import option
from captioner.plots import PLOT_SUFFIXES, check_plotting


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
        """Checks the files."""
        check_output("output", self.output)
        check_output("plot", self.plot)
        if self.plot is None:
            return
        if Path(self.plot).suffix.lower() not in PLOT_SUFFIXES:
            raise OptionError(f"`plot` must end in {', '.join(PLOT_SUFFIXES)}, not {self.plot!r}")
        if self.plot == self.output:
            raise OptionError(f"`output` and `plot` are one file, {self.output}")
        check_plotting("leave out `plot`")
