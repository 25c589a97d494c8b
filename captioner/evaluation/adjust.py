"""Adjust a model to images that it was not trained on: how it searches for captions, and how sure it says it is.

To tune is to try decoding options and keep the best. To calibrate is to see which captions are good, and to learn to
predict that from their log-probabilities.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from captioner import confidence
from captioner.caption import Calibration, features
from captioner.captioner import Captioner
from captioner.datasets.records import ImageId, Record, refuse_train_split
from captioner.decoding.options import DecodingOptions
from captioner.errors import EvaluationError, OptionError
from captioner.evaluation.captions import HumanCaptions
from captioner.evaluation.generate import generate, readable_batches
from captioner.files import write_figure
from captioner.metrics.evaluate import References, score_captions

FEWEST = 50
"""Images below which a calibration would be chance."""


@dataclass(frozen=True)
class Trial:
    """How captions written in one way do.

    Attributes:
        options: how they were written.
        figures: for each data set BLEU-4 and CIDEr, 0 to 1 and above, see ``captioner.metrics``.
        score: mean over the data sets of the figure that decides.
    """

    options: DecodingOptions
    figures: Mapping[str, Mapping[str, float]]
    score: float


@dataclass(frozen=True)
class Encoded:
    """Images of a data set as the decoder sees them.

    Attributes:
        label: of the data set.
        regions: float16 ``(images, regions, channels)``.
        ids: of the images.
        references: what people say of them, tokenised once.
    """

    label: str
    regions: np.typing.NDArray[np.float16]
    ids: Sequence[ImageId]
    references: References


def grid(base: DecodingOptions, choices: Mapping[str, Sequence[Any]]) -> list[DecodingOptions]:
    """All combinations of some values of options, each once.

    Args:
        base: all other options.
        choices: values of each field; none leave it as it is in ``base``.

    Raises:
        OptionError: a value is out of range, or captions would be drawn by chance.
    """
    if base.sampling:
        raise OptionError("the checkpoint draws its captions by chance", "only searching can be tuned")
    fields = {name: values for name, values in choices.items() if values}
    found = (replace(base, **dict(zip(fields, values, strict=True))) for values in product(*fields.values()))
    return list(dict.fromkeys(found))


def encode_images(
    captioner: Captioner,
    label: str,
    records: Sequence[Record],
    *,
    batch_size: int = 16,
    skip_unreadable: bool = False,
    on_progress: Callable[[int], Any] = lambda images: None,
) -> Encoded:
    """Encode the images of a data set once, for all trials. They stay in memory.

    Args:
        captioner: the model.
        label: what to call the data set.
        records: images that the model was not trained on.
        batch_size: images encoded at once.
        skip_unreadable: whether broken images are left out instead of being an error.
        on_progress: called with the number of images done since the last call.

    Raises:
        OptionError: images are of a train split, or ready-made vectors.
        EvaluationError: images are broken, or none is left.
    """
    refuse_train_split(records, label, "tune")
    if any(record.row is not None for record in records):
        raise OptionError(f"{label}: holds vectors", "only images are tuned on")
    parts, kept = [], []
    for batch in readable_batches(captioner, records, batch_size, skip_unreadable):
        if batch.pixels:
            regions = captioner.encode(batch.pixels)
            # A decoder without attention gets the mean of the regions.
            whole = regions if captioner.config.attention != "none" else regions.mean(axis=1, keepdims=True)
            parts.append(whole.astype(np.float16))
        kept += batch.readable
        on_progress(len(batch.readable) + len(batch.broken))
    if not kept:
        raise EvaluationError(f"{label}: not one image can be read")
    references = References({record.image_id: record.captions for record in kept})
    return Encoded(label, np.concatenate(parts), [record.image_id for record in kept], references)


def try_out(
    captioner: Captioner,
    sets: Sequence[Encoded],
    options: DecodingOptions,
    *,
    select_by: str = "CIDEr",
    batch_size: int = 16,
) -> Trial:
    """Caption all images in one way, and score each data set by itself.

    Args:
        captioner: the model.
        sets: images.
        options: how to search for captions.
        select_by: ``CIDEr`` or ``BLEU-4``.
        batch_size: images captioned at once.

    Raises:
        OptionError: the options ask for what the checkpoint does not have.
    """
    figures = {}
    for part in sets:
        captions: dict[ImageId, str] = {}
        for start in range(0, len(part.ids), batch_size):
            regions = part.regions[start : start + batch_size].astype(np.float32)
            written = captioner.decode(regions, options, attention=False)
            found = zip(part.ids[start : start + batch_size], written, strict=True)
            captions |= {image_id: best.text for image_id, (best, *_) in found}
        figures[part.label] = score_captions(captions, part.references).headline
    return Trial(options, figures, sum(found[select_by] for found in figures.values()) / len(figures))


def best_of(trials: Sequence[Trial]) -> Trial:
    """The one with the highest score, of several the first."""
    return max(trials, key=lambda trial: trial.score)


def trials_table(trials: Sequence[Trial], select_by: str) -> str:
    """Figures of all trials on the scale of papers, with the options that vary; the best one is marked."""
    best = best_of(trials)
    written = [trial.options.to_dict() for trial in trials]
    varied = [name for name, value in written[0].items() if any(each[name] != value for each in written)]
    labels = [f"{label} {name}" for label, found in trials[0].figures.items() for name in found]
    rows = [[*(name.replace("_", " ") for name in varied), *labels, f"mean {select_by}"]]
    for trial in trials:
        settings = [getattr(trial.options, name) for name in varied]
        values = [("no", "yes")[value] if isinstance(value, bool) else f"{value:g}" for value in settings]
        values += [f"{100 * value:.1f}" for found in trial.figures.values() for value in found.values()]
        rows.append([*values, f"{100 * trial.score:.1f}" + " *" * (trial is best)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


@dataclass(frozen=True)
class Calibrated:
    """A calibration and the captions behind it.

    Attributes:
        calibration: fitted on all captions.
        predicted: ``(images,)`` confidences by fits on other images.
        good: ``(images,)`` whether the captions are good.
    """

    calibration: Calibration
    predicted: confidence.Floats
    good: confidence.Booleans


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


def fitted(inputs: confidence.Floats, good: confidence.Booleans, data: str) -> Calibrated:
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
