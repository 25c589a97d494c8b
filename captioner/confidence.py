"""How sure a caption is: from its log-probabilities to the chance that it is a good one.

Logistic regression on two numbers that every caption has, fitted as in Platt 1999 ("Probabilistic Outputs
for Support Vector Machines and Comparisons to Regularized Likelihood Methods"), section 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from captioner.errors import OptionError

Floats: TypeAlias = npt.NDArray[np.float64]
Booleans: TypeAlias = npt.NDArray[np.bool_]

GOOD = 0.4
"""CIDEr-D from which on a caption counts as good. See docs/confidence.md for why this one."""

UNSURE = 1 / 3
"""Below it a caption is more than twice as likely to be bad as to be good."""

BINS = 10
_FOLDS = 10
_MOST_STEPS = 100
_LARGEST = 1e6  # no fitted coefficient comes near
_TEXT, _COUNTS = ("data",), ("photos",)


@dataclass(frozen=True)
class Calibration:
    """What turns the log-probabilities of a caption into a confidence, and how well it does.

    The confidence is ``1 / (1 + exp(-(intercept + per_nat * m + per_word * n)))`` with ``m`` the mean
    log-probability over the words and the end, and ``n`` the number of words.

    Attributes:
        intercept: see above.
        per_nat: see above.
        per_word: see above.
        good: CIDEr-D from which on a caption counts as good.
        data: data set and split that it was fitted on.
        photos: how many those were.
        base_rate: share of their captions that were good.
        log_loss: mean negative log-likelihood in nats; like the next two cross-validated.
        brier: mean squared difference of confidence and outcome.
        ece: expected calibration error over ten bins.

    Raises:
        OptionError: a value is of the wrong type or impossible.
    """

    intercept: float
    per_nat: float
    per_word: float
    good: float
    data: str
    photos: int
    base_rate: float
    log_loss: float
    brier: float
    ece: float

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in _TEXT:
                sound = isinstance(value, str)
            else:
                kinds = (int,) if item.name in _COUNTS else (int, float)
                sound = type(value) in kinds and -_LARGEST <= value <= _LARGEST
            if not sound:
                raise OptionError(f"confidence: {item.name} must not be {str(value)[:40]!r}")

    @property
    def meaning(self) -> str:
        """What a confidence is the probability of."""
        return (
            f"probability that the caption's CIDEr-D against the human captions of the image is at least "
            f"{self.good:g}, with the document frequencies of {self.data}"
        )

    def confidence(self, log_prob: float, words: int) -> float:
        """The confidence of a caption.

        Args:
            log_prob: log P(caption | image), the end included.
            words: how many it has, the end not counted.
        """
        mean, count = features(log_prob, words)
        score = self.intercept + self.per_nat * mean + self.per_word * count
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, score))))

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> Calibration:
        """Inverse of :meth:`to_dict`.

        Raises:
            OptionError: no mapping, an absent or unknown field, or as the class.
        """
        names = {item.name for item in fields(cls)}
        if not isinstance(data, dict) or set(data) != names:
            raise OptionError(f"confidence: must be a mapping with the keys {', '.join(sorted(names))}")
        return cls(**data)


def features(log_prob: float, words: int) -> tuple[float, float]:
    """What a confidence is made of: the mean log-probability over words and end, and the number of words."""
    return log_prob / (words + 1), float(words)


def fit(inputs: Floats, good: Booleans) -> Floats:
    """Weights of the logistic regression that explains best which captions are good.

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
    """Confidences ``(captions,)`` by the weights of :func:`fit`."""
    return _sigmoid(weights[0] + inputs @ weights[1:])


def cross_validated(inputs: Floats, good: Booleans) -> Floats:
    """Confidences of captions by weights that were fitted on other captions: ten parts take turns."""
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
    """Captions in bins of equal width, by confidence."""
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
    """Expected calibration error: how far confidence and share lie apart, on average over captions."""
    apart = sum(each.captions * abs(each.predicted - each.share) for each in bins)
    return apart / sum(each.captions for each in bins)


def brier(predicted: Floats, good: Booleans) -> float:
    """Brier score: mean squared difference of confidence and outcome."""
    return float(((predicted - good) ** 2).mean())


def log_loss(predicted: Floats, good: Booleans) -> float:
    """Mean negative log-likelihood of the outcomes, in nats."""
    return float(-np.log(np.where(good, predicted, 1 - predicted)).mean())


def _sigmoid(scores: Floats) -> Floats:
    values: Floats = 1 / (1 + np.exp(-np.clip(scores, -500, 500)))
    return values


def _cross_entropy(scores: Floats, targets: Floats) -> float:
    return float((np.logaddexp(0, scores) - targets * scores).mean())
