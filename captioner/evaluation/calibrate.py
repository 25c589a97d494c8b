"""Caption images, see which captions are good, and learn to predict that from their log-probabilities."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captioner import confidence
from captioner.caption import Calibration, features
from captioner.captioner import Captioner
from captioner.confidence import Booleans, Floats
from captioner.datasets.records import Record, refuse_train_split
from captioner.errors import EvaluationError, OptionError
from captioner.evaluation.captions import HumanCaptions
from captioner.evaluation.generate import generate
from captioner.files import write_figure
from captioner.metrics.evaluate import score_captions

FEWEST = 50
"""Images below which a calibration would be chance."""


@dataclass(frozen=True)
class Calibrated:
    """A calibration and the captions behind it.

    Attributes:
        calibration: fitted on all captions.
        predicted: ``(images,)`` confidences by fits on other images.
        good: ``(images,)`` whether the captions are good.
    """

    calibration: Calibration
    predicted: Floats
    good: Booleans


def calibrate(
    captioner: Captioner,
    records: Sequence[Record],
    data: str,
    *,
    batch_size: int = 16,
    skip_unreadable: bool = False,
    on_progress: Callable[[int], Any] = lambda images: None,
) -> Calibrated:
    """Learn how sure the best captions of a model are, written as its checkpoint says.

    Args:
        captioner: the model.
        records: images that it was not trained on.
        data: what to call them.
        batch_size: images captioned at once.
        skip_unreadable: whether broken images are left out instead of being an error.
        on_progress: called with the number of images done since the last call.

    Raises:
        OptionError: images are of a train split, or the checkpoint's captions are drawn by chance.
        EvaluationError: images are too few or broken, or their captions are all good or all bad.
    """
    refuse_train_split(records, data, "calibrate")
    if captioner.options.sampling:
        raise OptionError("the checkpoint draws its captions by chance", "only captions searched for are rated")
    human = HumanCaptions.from_records(records)
    made = generate(
        captioner,
        records,
        captioner.options,
        batch_size=batch_size,
        skip_unreadable=skip_unreadable,
        on_progress=on_progress,
    )
    scores = score_captions(made.captions, human.judging(made.captions, subset=True))
    best = [made.best[image_id] for image_id in scores.ids]
    inputs = np.array([features(caption.log_prob, len(caption.words)) for caption in best])
    return fitted(inputs, scores.per_image["CIDEr"] >= confidence.GOOD, data)


def fitted(inputs: Floats, good: Booleans, data: str) -> Calibrated:
    """Fit a calibration to captions that have been judged.

    Args:
        inputs: ``(images, 2)``, see :func:`captioner.caption.features`.
        good: ``(images,)``.
        data: what to call the images.

    Raises:
        EvaluationError: they are too few, or all good or all bad.
    """
    if len(good) < FEWEST:
        raise EvaluationError(f"{data}: {len(good)} images are too few to calibrate on", f"give at least {FEWEST}")
    if good.all() or not good.any():
        kind = "good" if good.all() else "bad"
        raise EvaluationError(f"{data}: all {len(good):,} captions are {kind}", "there is nothing to tell apart")
    predicted = confidence.cross_validated(inputs, good)
    intercept, per_nat, per_word = confidence.fit(inputs, good).tolist()
    calibration = Calibration(
        intercept=intercept,
        per_nat=per_nat,
        per_word=per_word,
        good=confidence.GOOD,
        data=data,
        photos=len(good),
        base_rate=float(good.mean()),
        log_loss=confidence.log_loss(predicted, good),
        brier=confidence.brier(predicted, good),
        ece=confidence.calibration_error(confidence.reliability(predicted, good)),
    )
    return Calibrated(calibration, predicted, good)


def calibration_table(found: Calibrated) -> str:
    """Return the figures beside those of predicting the same, the share of good captions, for every image."""
    known = found.calibration
    usual = np.full(len(found.good), known.base_rate)
    lines = [
        f"{known.data}: {known.photos:,} images, {100 * known.base_rate:.1f} % of the captions are good "
        f"(CIDEr-D of at least {known.good:g})",
        "",
        f"{'cross-validated':<26}{'confidence':>12}{'always the same':>17}",
        f"{'log-loss (nats)':<26}{known.log_loss:>12.4f}{confidence.log_loss(usual, found.good):>17.4f}",
        f"{'Brier score':<26}{known.brier:>12.4f}{confidence.brier(usual, found.good):>17.4f}",
        f"{'expected calibration error':<26}{known.ece:>12.4f}",
        "",
        f"{'confidence':<14}{'captions':>9}{'mean':>8}{'good':>8}",
    ]
    for each in confidence.reliability(found.predicted, found.good):
        figures = f"{100 * each.predicted:>6.1f} %{100 * each.share:>6.1f} %" if each.captions else ""
        lines.append(f"{100 * each.low:3.0f} to {100 * each.high:3.0f} %{each.captions:>9}{figures}".rstrip())
    return "\n".join(lines)


def write_reliability(path: str | Path, found: Calibrated) -> None:
    """Draw how many captions of each confidence are good, with 95 % intervals, and how many there are.

    Raises:
        CaptionerError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    bins = [each for each in confidence.reliability(found.predicted, found.good) if each.captions]
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
    bars = lower.bar([(each.low + each.high) / 2 for each in bins], [e.captions for e in bins], 0.9 / confidence.BINS)
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
