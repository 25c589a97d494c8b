"""Where the region features of training photos come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from captioner.training.options import TrainingOptions
from captioner.training.pictures import PhotosOf, PictureInputs, Pictures, Step
from captioner.training.preparation import TrainingData


class Inputs(Protocol):
    """Gives the features of the photos of a batch."""

    def ahead(self, steps: Iterable[Step], photos_of: PhotosOf, epoch: int) -> Iterator[Step]:
        """The same steps, whose photos may be got ready a little before they are fetched.

        Args:
            steps: the steps of an epoch.
            photos_of: tells which photos will be fetched for a step.
            epoch: epochs before this one.
        """

    def fetch(self, photos: Sequence[int]) -> Tensor:
        """Features of whole photos, by their position in the training set.

        Returns:
            ``(photos, regions, channels)``, on the device of the decoder.
        """


@dataclass(frozen=True)
class StoredInputs:
    """Features that a frozen encoder has computed beforehand.

    Attributes:
        data: the training set and its features.
        device: where the decoder is.
    """

    data: TrainingData
    device: torch.device

    def ahead(self, steps: Iterable[Step], photos_of: PhotosOf, epoch: int) -> Iterator[Step]:
        """See :class:`Inputs`; all are ready."""
        yield from steps

    def fetch(self, photos: Sequence[int]) -> Tensor:
        """See :class:`Inputs`; float32."""
        return self.data.features.fetch([self.data.photos[photo] for photo in photos], self.device)


def inputs_of(data: TrainingData, options: TrainingOptions, device: torch.device) -> Inputs:
    """What gives the features of a training set: its photos behind an encoder in training, or a store."""
    if isinstance(data.features, Pictures):
        return PictureInputs(data, data.features, options.augment, options.seed, device)
    return StoredInputs(data, device)
