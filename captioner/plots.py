"""Plots as files. matplotlib is an extra, so whether it is there is asked before the work begins."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.errors import OptionError
from captioner.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def check_plotting(instead: str) -> None:
    """See whether plots can be drawn.

    Args:
        instead: what to do without plot.

    Raises:
        OptionError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise OptionError(f"the plot needs matplotlib: pip install 'captioner[train]', or {instead}")


def write_figure(path: str | Path, figure: Figure) -> None:
    """Write a figure in the format of the file's ending, whole or not at all.

    Raises:
        CaptionerError: the file cannot be written.
    """
    image = io.BytesIO()
    figure.savefig(image, format=Path(path).suffix[1:].lower(), dpi=120)
    write_atomically(path, image.getvalue())
