"""Photos for an encoder that is trained: nothing of them is kept, they are read whenever they are needed."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from captioner.checkpoint import encoder_digest
from captioner.datasets import Record
from captioner.errors import ImageError, TrainingError
from captioner.features.digests import READERS, DigestIndex
from captioner.images import Pixels, Preprocessing, display_name, open_image
from captioner.model.encoder import output_shape
from captioner.training.augmentation import augmented_pixels, mirrorable
from captioner.training.data import Batch
from captioner.training.finetuning import TunedEncoder
from captioner.training.preparation import TrainingData

Step: TypeAlias = list[Batch]
PhotosOf: TypeAlias = Callable[[Step], Iterable[int]]

_BATCH = 32


@dataclass(frozen=True)
class Pictures:
    """Some photos, which are encoded with the weights that the encoder has at that moment.

    Attributes:
        paths: their files.
        rows: for each photo, the position of the first one of the same bytes; -1 for a broken photo.
        digests: for each photo, the SHA-256 of its bytes; empty if it cannot be read.
        broken: why photos are broken, by their position.
        encoder: the encoder in training.
        preprocessing: what it sees.
        dtype: precision of encoding.
    """

    paths: Sequence[Path]
    rows: npt.NDArray[np.int64]
    digests: Sequence[str]
    broken: Mapping[int, str]
    encoder: TunedEncoder
    preprocessing: Preprocessing
    dtype: torch.dtype

    @torch.inference_mode()
    def fetch(self, photos: Sequence[int], device: torch.device) -> Tensor:
        """Features of whole photos as they are, by their position.

        Returns:
            float32 ``(photos, regions, channels)``.

        Raises:
            TrainingError: a photo has become unreadable.
        """
        regions = []
        with _readers() as readers:
            pixels = readers.map(lambda photo: self.preprocessing.pixels(self.open(photo)), photos)
            for start in range(0, len(photos), _BATCH):
                part = [next(pixels) for _ in photos[start : start + _BATCH]]
                regions.append(self.encode(part, device))
        return torch.cat(regions)

    def encode(self, pixels: Sequence[Pixels], device: torch.device) -> Tensor:
        """Features of preprocessed pictures: float32 ``(pictures, regions, channels)``."""
        images = self.preprocessing.normalise(torch.from_numpy(np.stack(list(pixels))).to(device))
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.encoder(images).float()

    def open(self, photo: int) -> Image.Image:
        """A photo, upright, by its position.

        Raises:
            TrainingError: it has become unreadable.
        """
        try:
            return _open(self.paths[photo], self.preprocessing)
        except ImageError as error:
            raise TrainingError(
                f"{error}; it could be read when the run began: put it back and go on with --resume"
            ) from error


class PictureStore:
    """Looks at the photos of a run before it begins.

    Args:
        folder: cache folder; it keeps digests of the photos, and nothing that the encoder made of them.
        encoder: the encoder in training.
        preprocessing: what it sees.
        dtype: precision of encoding.
    """

    def __init__(
        self, folder: str | Path, encoder: TunedEncoder, preprocessing: Preprocessing, dtype: torch.dtype
    ) -> None:
        self.encoder, self.preprocessing, self.dtype = encoder, preprocessing, dtype
        self.shape = output_shape(encoder.encoder, preprocessing.size)
        self.digests = DigestIndex(Path(folder).expanduser() / "features" / "digests.sqlite")
        facts = json.dumps([encoder_digest(encoder.encoder), preprocessing.to_dict()])
        key = hashlib.sha256(facts.encode()).hexdigest()[:16]
        self.name = f"{encoder.encoder.name}-{key}"

    def features_of(self, records: Sequence[Record]) -> Pictures:
        """Open every photo once, so that broken ones are known before the training begins."""
        paths = [record.path for record in records]
        digests = self.digests.digests(paths)
        first_of = {digest: place for place, digest in reversed(list(enumerate(digests)))}
        firsts = sorted(first_of.values())
        with _readers() as readers:
            reasons = readers.map(self._why_broken, [paths[place] for place in firsts])
            progress = tqdm(reasons, "checking photos", len(firsts), unit="photo", leave=False)
            reason_of = dict(zip(firsts, progress, strict=True))
        rows = [first_of[digest] for digest in digests]
        return Pictures(
            paths=paths,
            rows=np.array([-1 if reason_of[row] else row for row in rows], dtype=np.int64),
            digests=[digest if len(digest) == 64 else "" for digest in digests],
            broken={
                place: f"{display_name(paths[place])}: {reason_of[row]}"
                for place, row in enumerate(rows)
                if reason_of[row]
            },
            encoder=self.encoder,
            preprocessing=self.preprocessing,
            dtype=self.dtype,
        )

    def _why_broken(self, path: Path) -> str:
        try:
            _open(path, self.preprocessing)
        except ImageError as error:
            return str(error).removeprefix(f"{display_name(path)}: ")
        return ""


class PictureInputs:
    """Features of training photos with gradients, of photos that are changed at random each time.

    What is random depends on the run's seed, the epoch and the photo alone, so that a resumed run and any
    number of processes see the same.

    Args:
        data: the training set.
        pictures: its photos.
        augment: how photos are changed, see :func:`captioner.training.augmentation.augmented_pixels`.
        seed: of the run.
        device: where the encoder is.
    """

    def __init__(
        self, data: TrainingData, pictures: Pictures, augment: str, seed: int, device: torch.device
    ) -> None:
        self.pictures, self.photos = pictures, data.photos
        self.augment, self.seed, self.device = augment, seed, device
        self.mirror = [mirrorable(captions, data.vocabulary) for captions in data.captions]
        self._coming: dict[int, deque[Future[Pixels]]] = {}  # a photo may be seen again in the next step

    def ahead(self, steps: Iterable[Step], photos_of: PhotosOf, epoch: int) -> Iterator[Step]:
        """See :class:`captioner.training.inputs.Inputs`; during a step, the photos of the next are read."""
        with _readers() as readers:
            before: Step | None = None
            for step in steps:
                for photo in photos_of(step):
                    coming = self._coming.setdefault(photo, deque())
                    coming.append(readers.submit(self._pixels, photo, epoch))
                if before is not None:
                    yield before
                before = step
            if before is not None:
                yield before

    def fetch(self, photos: Sequence[int]) -> Tensor:
        """See :class:`captioner.training.inputs.Inputs`.

        Raises:
            TrainingError: a photo has become unreadable.
        """
        pixels = [self._coming[photo].popleft().result() for photo in photos]
        return self.pictures.encode(pixels, self.device)

    def _pixels(self, photo: int, epoch: int) -> Pixels:
        image = self.pictures.open(self.photos[photo])
        chance = np.random.default_rng((self.seed, epoch, photo))
        return augmented_pixels(
            image, self.pictures.preprocessing, self.augment, chance, mirror=self.mirror[photo]
        )


def _open(path: Path, preprocessing: Preprocessing) -> Image.Image:
    return open_image(path, min_size=preprocessing.resize_size or preprocessing.size)


@contextmanager
def _readers() -> Iterator[ThreadPoolExecutor]:
    """Threads that read photos; after a failure or Ctrl-C those that were not begun are not read."""
    with ThreadPoolExecutor(READERS) as readers:
        try:
            yield readers
        except BaseException:
            readers.shutdown(cancel_futures=True)
            raise
