"""How the region features of training images come to the training loop."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from captioner.images import Pixels
from captioner.training.augmentation import augmented_pixels, mirrorable
from captioner.training.data import Batch
from captioner.training.encoding import Images, readers
from captioner.training.options import TrainingOptions
from captioner.training.preparation import TrainingData

Step: TypeAlias = list[Batch]
ImagesOf: TypeAlias = Callable[[Step], Iterable[int]]


class ImageInputs:
    """Features of training photos with gradients, of photos that are changed at random each time.

    What is random depends on the run's seed, the epoch and the image alone, so that a resumed run and any
    number of processes see the same.

    Args:
        data: the training set.
        pictures: its photos.
        augment: how photos are changed, see :func:`captioner.training.augmentation.augmented_pixels`.
        seed: of the run.
        device: where the encoder is.
    """

    def __init__(self, data: TrainingData, source: Images, augment: str, seed: int, device: torch.device) -> None:
        self.source, self.images = source, data.images
        self.augment, self.seed, self.device = augment, seed, device
        self.mirror = [mirrorable(captions, data.vocabulary) for captions in data.captions]
        self._coming: dict[int, deque[Future[Pixels]]] = {}  # an image may be seen again in the next step

    def ahead(self, steps: Iterable[Step], images_of: ImagesOf, epoch: int) -> Iterator[Step]:
        """The same steps; during a step, the images of the next are read.

        Args:
            steps: the steps of an epoch.
            images_of: returns the images that will be fetched for a step.
            epoch: epochs before this one.
        """
        with readers() as threads:
            before: Step | None = None
            for step in steps:
                for number in images_of(step):
                    coming = self._coming.setdefault(number, deque())
                    coming.append(threads.submit(self._pixels, number, epoch))
                if before is not None:
                    yield before
                before = step
            if before is not None:
                yield before

    def fetch(self, images: Sequence[int]) -> Tensor:
        """Features of whole images, by their position in the training set.

        Returns:
            ``(images, regions, channels)``, on the device of the decoder.

        Raises:
            TrainingError: an image has become unreadable.
        """
        pixels = [self._coming[number].popleft().result() for number in images]
        return self.source.encode(pixels, self.device)

    def _pixels(self, number: int, epoch: int) -> Pixels:
        image = self.source.open(self.images[number])
        chance = np.random.default_rng((self.seed, epoch, number))
        return augmented_pixels(
            image, self.source.store.preprocessing, self.augment, chance, mirror=self.mirror[number]
        )


@dataclass(frozen=True)
class StoredInputs:
    """Features that a frozen encoder has computed beforehand.

    Attributes:
        data: the training set and its features.
        device: where the decoder is.
    """

    data: TrainingData
    device: torch.device

    def ahead(self, steps: Iterable[Step], images_of: ImagesOf, epoch: int) -> Iterator[Step]:
        """The same steps: all is ready."""
        yield from steps

    def fetch(self, images: Sequence[int]) -> Tensor:
        """See :meth:`ImageInputs.fetch`; float32."""
        return self.data.features.fetch([self.data.images[number] for number in images], self.device)


def inputs_of(data: TrainingData, options: TrainingOptions, device: torch.device) -> ImageInputs | StoredInputs:
    """What gives the features of a training set: its images behind an encoder in training, or a store."""
    if isinstance(data.features, Images):
        return ImageInputs(data, data.features, options.augment, options.seed, device)
    return StoredInputs(data, device)
