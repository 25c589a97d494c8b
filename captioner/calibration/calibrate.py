"""Caption photos, see which captions are good, and learn to tell from their log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from captioner.captioner import Captioner
from captioner.confidence import (
    GOOD,
    Booleans,
    Calibration,
    Floats,
    brier,
    calibration_error,
    cross_validated,
    features,
    fit,
    log_loss,
    reliability,
)
from captioner.datasets.records import Record, refuse_train_split
from captioner.errors import EvaluationError, OptionError
from captioner.evaluation.generate import generate
from captioner.evaluation.references import HumanCaptions
from captioner.metrics.evaluate import score

FEWEST = 50
"""Photos below which a calibration would be chance."""


@dataclass(frozen=True)
class Calibrated:
    """A calibration and the captions behind it.

    Attributes:
        calibration: fitted on all captions.
        predicted: ``(photos,)`` confidences by fits on other photos.
        good: ``(photos,)`` whether the captions are good.
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
    on_progress: Callable[[int], Any] = lambda photos: None,
) -> Calibrated:
    """Learn how sure the best captions of a model are, written as its checkpoint says.

    Args:
        captioner: the model.
        records: photos that it was not trained on.
        data: what to call them.
        batch_size: photos captioned at once.
        skip_unreadable: whether broken photos are left out instead of being an error.
        on_progress: called with the number of photos done since the last call.

    Raises:
        OptionError: photos are of a train split, or the checkpoint's captions are drawn by chance.
        EvaluationError: photos are too few or broken, or their captions are all good or all bad.
    """
    refuse_train_split(records, data, "calibrate")
    if captioner.options.sampling:
        raise OptionError(
            "the checkpoint draws its captions by chance", "only captions searched for are rated"
        )
    human = HumanCaptions.from_records(records)
    made = generate(
        captioner,
        records,
        captioner.options,
        batch_size=batch_size,
        skip_unreadable=skip_unreadable,
        on_progress=on_progress,
    )
    scores = score(made.captions, human.judging(made.captions, subset=True))
    best = [made.best[image_id] for image_id in scores.ids]
    inputs = np.array([features(caption.log_prob, len(caption.words)) for caption in best])
    return fitted(inputs, scores.per_image["CIDEr"] >= GOOD, data)


def fitted(inputs: Floats, good: Booleans, data: str) -> Calibrated:
    """The calibration that follows from captions.

    Args:
        inputs: ``(photos, 2)``, see :func:`captioner.confidence.features`.
        good: ``(photos,)``.
        data: what to call the photos.

    Raises:
        EvaluationError: they are too few, or all good or all bad.
    """
    if len(good) < FEWEST:
        raise EvaluationError(
            f"{data}: {len(good)} photos are too few to calibrate on", f"give at least {FEWEST}"
        )
    if good.all() or not good.any():
        kind = "good" if good.all() else "bad"
        raise EvaluationError(f"{data}: all {len(good):,} captions are {kind}", "nothing is to be told apart")
    predicted = cross_validated(inputs, good)
    intercept, per_nat, per_word = fit(inputs, good).tolist()
    calibration = Calibration(
        intercept=intercept,
        per_nat=per_nat,
        per_word=per_word,
        good=GOOD,
        data=data,
        photos=len(good),
        base_rate=float(good.mean()),
        log_loss=log_loss(predicted, good),
        brier=brier(predicted, good),
        ece=calibration_error(reliability(predicted, good)),
    )
    return Calibrated(calibration, predicted, good)
