"""The figures as a file, as a plot and for the screen."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.files import write_atomically, write_figure
from captioner.gradients.measure import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("model", "trained", "lag", "state_norm", "hidden_norm", "relative")
_SHOWN_LAGS = (1, 2, 5, 10, 15, 20, 30, 50, 100, 200, 500)
_FLOOR = 1e-12  # of the plot; what is smaller is gone


def write_csv(path: str | Path, curves: Sequence[Curve]) -> None:
    """Write one row for each model and lag.

    Raises:
        CaptionerError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for curve in curves:
        rows = zip(curve.states, curve.hidden, curve.relative, strict=True)
        for lag, figures in enumerate(rows):
            writer.writerow([curve.model, int(curve.trained), lag, *(f"{figure:.6g}" for figure in figures)])
    write_atomically(path, text.getvalue())


def table(curves: Sequence[Curve]) -> str:
    """Norms by lag as shares of the norm at lag 0, one line a model."""
    last = max(len(curve.relative) for curve in curves) - 1
    lags = [lag for lag in _SHOWN_LAGS if lag <= last]
    width = max(len(curve.model) for curve in curves)
    lines = ["lag".ljust(width) + "".join(f"{lag:>10}" for lag in lags)]
    for curve in curves:
        figures = [f"{curve.relative[lag]:10.2g}" if lag < len(curve.relative) else " " * 10 for lag in lags]
        lines.append(curve.model.ljust(width) + "".join(figures))
    return "\n".join(line.rstrip() for line in lines)


def write_plot(path: str | Path, curves: Sequence[Curve]) -> None:
    """Draw fresh and trained models side by side, on one scale.

    Raises:
        CaptionerError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    kinds = [(False, "fresh"), (True, "trained")]
    panels = [(title, part) for kind, title in kinds if (part := [c for c in curves if c.trained == kind])]
    figure = Figure(figsize=(5.5 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, part) in zip(axes, panels, strict=True):
        _draw(axis, title, part)
    axes[0].set_ylabel("norm of the gradient, lag 0 = 1")
    write_figure(path, figure)


def _draw(axis: Axes, title: str, curves: Sequence[Curve]) -> None:
    for curve in curves:
        seen = [(lag, value) for lag, value in enumerate(curve.relative) if value >= _FLOOR]
        axis.semilogy(*zip(*seen, strict=True), label=curve.model, linewidth=2)
    axis.set(title=title, xlabel="words between the loss and the state")
    axis.grid(visible=True, alpha=0.3)
    axis.legend()
