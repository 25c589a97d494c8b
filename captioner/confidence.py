"""Fitting how sure captions are: from their log-probabilities to the chance that they are good.

Logistic regression on two numbers that every caption has, fitted as in Platt 1999 ("Probabilistic Outputs
for Support Vector Machines and Comparisons to Regularized Likelihood Methods"), section 2.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Floats = np.typing.NDArray[np.float64]
Booleans = np.typing.NDArray[np.bool_]

GOOD = 0.4
"""CIDEr-D from which on a caption counts as good. See docs/confidence.md for why this one."""

BINS = 10
_FOLDS = 10
_MOST_STEPS = 100


def fit(inputs: Floats, good: Booleans) -> Floats:
    """Fit the weights of the logistic regression that explains best which captions are good.

    Args:
        inputs: ``(captions, inputs)``.
        good: ``(captions,)``.

    Returns:
        ``(1 + inputs,)`` the intercept and the weight of each input.
    """
    centre, spread = inputs.mean(axis=0), inputs.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    design = np.column_stack([np.ones(len(inputs)), (inputs - centre) / spread])
    # Platt's targets: never quite 0 or 1, so that no weight grows without end where the data fall apart.
    hits = int(good.sum())
    targets = np.where(good, (hits + 1) / (hits + 2), 1 / (len(good) - hits + 2))
    weights = np.zeros(design.shape[1])
    loss = _cross_entropy(design @ weights, targets)
    for _ in range(_MOST_STEPS):
        predicted = _sigmoid(design @ weights)
        gradient = design.T @ (predicted - targets)
        curvature = (design * (predicted * (1 - predicted))[:, None]).T @ design
        step = np.linalg.pinv(curvature) @ gradient
        while (changed := _cross_entropy(design @ (weights - step), targets)) > loss + 1e-12:
            step /= 2
        weights, gain, loss = weights - step, loss - changed, changed
        if gain < 1e-12:
            break
    slopes = weights[1:] / spread
    return np.concatenate([[weights[0] - slopes @ centre], slopes])


def predict(weights: Floats, inputs: Floats) -> Floats:
    """Compute confidences ``(captions,)`` by the weights of :func:`fit`."""
    return _sigmoid(weights[0] + inputs @ weights[1:])


def cross_validated(inputs: Floats, good: Booleans) -> Floats:
    """Compute confidences of captions by weights that were fitted on other captions: ten parts take turns."""
    parts = np.random.default_rng(0).permutation(len(good)) % _FOLDS
    predicted = np.empty(len(good))
    for part in range(_FOLDS):
        here = parts == part
        predicted[here] = predict(fit(inputs[~here], good[~here]), inputs[here])
    return predicted


class Bin(NamedTuple):
    """Captions of similar confidence.

    Attributes:
        low: least confidence of the bin.
        high: what confidences stay below.
        captions: how many are in it.
        predicted: their mean confidence; the middle of the bin if there are none.
        share: how many of them are good; 0 if there are none.
    """

    low: float
    high: float
    captions: int
    predicted: float
    share: float


def reliability(predicted: Floats, good: Booleans, bins: int = BINS) -> list[Bin]:
    """Put captions into bins of equal width, by confidence."""
    places = np.minimum((predicted * bins).astype(int), bins - 1)
    found = []
    for place in range(bins):
        here = places == place
        count = int(here.sum())
        mean = float(predicted[here].mean()) if count else (place + 0.5) / bins
        share = float(good[here].mean()) if count else 0.0
        found.append(Bin(place / bins, (place + 1) / bins, count, mean, share))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """Compute the expected calibration error: how far confidence and share lie apart, on average over captions."""
    apart = sum(each.captions * abs(each.predicted - each.share) for each in bins)
    return apart / sum(each.captions for each in bins)


def brier(predicted: Floats, good: Booleans) -> float:
    """Compute the Brier score: mean squared difference of confidence and outcome."""
    return float(((predicted - good) ** 2).mean())


def log_loss(predicted: Floats, good: Booleans) -> float:
    """Compute the mean negative log-likelihood of the outcomes, in nats."""
    return float(-np.log(np.where(good, predicted, 1 - predicted)).mean())


def _sigmoid(scores: Floats) -> Floats:
    values: Floats = 1 / (1 + np.exp(-np.clip(scores, -500, 500)))
    return values


def _cross_entropy(scores: Floats, targets: Floats) -> float:
    return float((np.logaddexp(0, scores) - targets * scores).mean())
