"""A calibration for the screen and as a plot."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from captioner.calibration.calibrate import Calibrated
from captioner.confidence import BINS, brier, log_loss, reliability
from captioner.plots import write_figure


def calibration_table(found: Calibrated) -> str:
    """Figures beside those of somebody who says the share of good captions of every photo."""
    known = found.calibration
    usual = np.full(len(found.good), known.base_rate)
    lines = [
        f"{known.data}: {known.photos:,} photos, {100 * known.base_rate:.1f} % of the captions are good "
        f"(CIDEr-D of at least {known.good:g})",
        "",
        f"{'cross-validated':<26}{'confidence':>12}{'always the same':>17}",
        f"{'log-loss (nats)':<26}{known.log_loss:>12.4f}{log_loss(usual, found.good):>17.4f}",
        f"{'Brier score':<26}{known.brier:>12.4f}{brier(usual, found.good):>17.4f}",
        f"{'expected calibration error':<26}{known.ece:>12.4f}",
        "",
        f"{'confidence':<14}{'captions':>9}{'mean':>8}{'good':>8}",
    ]
    for each in reliability(found.predicted, found.good):
        figures = f"{100 * each.predicted:>6.1f} %{100 * each.share:>6.1f} %" if each.captions else ""
        lines.append(f"{100 * each.low:3.0f} to {100 * each.high:3.0f} %{each.captions:>9}{figures}".rstrip())
    return "\n".join(lines)


def write_reliability(path: str | Path, found: Calibrated) -> None:
    """Draw how many captions of each confidence are good, with 95 % intervals, and how many there are.

    Raises:
        CaptionerError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    bins = [each for each in reliability(found.predicted, found.good) if each.captions]
    figure = Figure(figsize=(5.5, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="as it should be")
    bounds = [wilson_interval(round(each.share * each.captions), each.captions) for each in bins]
    below = [each.share - low for each, (low, _) in zip(bins, bounds, strict=True)]
    above = [high - each.share for each, (_, high) in zip(bins, bounds, strict=True)]
    upper.errorbar(
        [each.predicted for each in bins],
        [each.share for each in bins],
        yerr=[below, above],
        marker="o",
        linestyle="none",
        capsize=3,
        label="captions, cross-validated",
    )
    upper.set(ylabel="share of good captions", xlim=(0, 1), ylim=(0, 1), title=found.calibration.data)
    upper.legend(loc="upper left")
    upper.grid(visible=True, alpha=0.3)
    bars = lower.bar([(each.low + each.high) / 2 for each in bins], [e.captions for e in bins], 0.9 / BINS)
    lower.bar_label(bars, fontsize=8)
    lower.margins(y=0.25)
    lower.set(xlabel="confidence", ylabel="captions")
    write_figure(path, figure)


def wilson_interval(hits: int, count: int, deviations: float = 1.96) -> tuple[float, float]:
    """Where a share lies with 95 % certainty (Wilson 1927), within 0 and 1 even for few captions."""
    share, square = hits / count, deviations**2 / count
    centre = (share + square / 2) / (1 + square)
    reach = deviations * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return min(share, max(0.0, centre - reach)), max(share, min(1.0, centre + reach))
