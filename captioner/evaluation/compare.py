"""Two sets of captions of the same images, judged side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from captioner.errors import EvaluationError
from captioner.metrics.bootstrap import Difference, compare
from captioner.metrics.evaluate import name_some

if TYPE_CHECKING:
    from collections.abc import Mapping

    from captioner.datasets.records import ImageId
    from captioner.evaluation.evaluate import Evaluation


class Contrast(NamedTuple):
    """An image on which two captions differ: its CIDEr-D under each of them."""

    image_id: ImageId
    first: float
    second: float
    first_caption: str
    second_caption: str


@dataclass(frozen=True)
class Comparison:
    """Two evaluations and their differences.

    Attributes:
        first: the evaluation to start from.
        second: the evaluation that may be better.
        differences: of each metric, second minus first, with interval and p-value.
        contrasts: the images on whose CIDEr-D the two differ most, the largest difference first.
        resamples: of the paired bootstrap.
        seed: of the paired bootstrap.
    """

    first: Evaluation
    second: Evaluation
    differences: Mapping[str, Difference]
    contrasts: tuple[Contrast, ...]
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, object]:
        """Returns plain values for JSON, on the scale of :meth:`Evaluation.to_dict`."""
        return {
            "scale": "0-1",
            "differences": {
                name: {**found._asdict(), "interval": list(found.interval)} for name, found in self.differences.items()
            },
            "bootstrap": {"resamples": self.resamples, "seed": self.seed},
            "contrasts": [contrast._asdict() for contrast in self.contrasts],
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
        }


def check_same_images(first: Mapping[ImageId, str], second: Mapping[ImageId, str]) -> None:
    """Checks that two sets of captions are of the same images.

    Raises:
        EvaluationError: an image has a caption in only one of them.
    """
    if odd := first.keys() ^ second.keys():
        raise EvaluationError(f"{len(odd)} images have a caption in one of the two files only: {name_some(odd)}")


def compare_evaluations(first: Evaluation, second: Evaluation, *, resamples: int, seed: int, top: int) -> Comparison:
    """Compares two evaluations by the paired bootstrap.

    Args:
        first: the evaluation to start from.
        second: the evaluation that may be better.
        resamples: of the paired bootstrap, at least 1.
        seed: of the paired bootstrap.
        top: how many of the images on which the two differ most are named.

    Raises:
        EvaluationError: the two are not of the same images.
    """
    check_same_images(first.captions, second.captions)
    return Comparison(
        first=first,
        second=second,
        differences=compare(first.scores, second.scores, resamples, seed),
        contrasts=_contrasts(first, second, top),
        resamples=resamples,
        seed=seed,
    )


def _contrasts(first: Evaluation, second: Evaluation, top: int) -> tuple[Contrast, ...]:
    places = {image_id: place for place, image_id in enumerate(second.scores.ids)}
    order = [places[image_id] for image_id in first.scores.ids]
    ours, theirs = first.scores.per_image["CIDEr"], second.scores.per_image["CIDEr"][order]
    ranked = np.argsort(-np.abs(theirs - ours), kind="stable")[:top]
    return tuple(
        Contrast(
            image_id=(image_id := first.scores.ids[place]),
            first=float(ours[place]),
            second=float(theirs[place]),
            first_caption=first.captions[image_id],
            second_caption=second.captions[image_id],
        )
        for place in ranked.tolist()
        if ours[place] != theirs[place]
    )
