"""Where features come from: images behind an encoder, frozen or in training, or ready-made vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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

from captioner.checkpoint import Checkpoint, encoder_digest
from captioner.datasets import DatasetOptions, Record
from captioner.datasets.codes import codes_file
from captioner.errors import ImageError, OptionError, TrainingError
from captioner.features import READERS, DigestIndex, FeatureRows, FeatureStore, VectorStore
from captioner.images import Pixels, Preprocessing, display_name, open_image
from captioner.model.config import NO_ENCODER
from captioner.model.encoder import (
    NO_PREPROCESSING,
    Encoder,
    NoEncoder,
    build_encoder,
    encoder_preprocessing,
    output_shape,
)
from captioner.training.finetuning import TunedEncoder, frozen_stages
from captioner.training.options import TrainingOptions

_BATCH = 32


@dataclass(frozen=True)
class Images:
    """Some images, which are encoded with the weights that the encoder has at that moment.

    Attributes:
        paths: their files.
        rows: for each image, the position of the first one of the same bytes; -1 for a broken image.
        digests: for each image, the SHA-256 of its bytes; empty if it cannot be read.
        broken: why images are broken, by their position.
        store: what has made them; it has the encoder.
    """

    paths: Sequence[Path]
    rows: npt.NDArray[np.int64]
    digests: Sequence[str]
    broken: Mapping[int, str]
    store: PixelStore

    @torch.inference_mode()
    def fetch(self, images: Sequence[int], device: torch.device) -> Tensor:
        """Features of whole images as they are, by their position.

        Returns:
            float32 ``(images, regions, channels)``.

        Raises:
            TrainingError: an image has become unreadable.
        """
        regions = []
        with readers() as threads:
            pixels = threads.map(lambda number: self.store.preprocessing.pixels(self.open(number)), images)
            for start in range(0, len(images), _BATCH):
                part = [next(pixels) for _ in images[start : start + _BATCH]]
                regions.append(self.encode(part, device))
        return torch.cat(regions)

    def encode(self, pixels: Sequence[Pixels], device: torch.device) -> Tensor:
        """Features of preprocessed images: float32 ``(images, regions, channels)``."""
        store = self.store
        images = store.preprocessing.normalise(torch.from_numpy(np.stack(list(pixels))).to(device))
        with torch.autocast(device.type, store.dtype, enabled=store.dtype != torch.float32):
            return store.encoder(images).float()

    def open(self, number: int) -> Image.Image:
        """An image, upright, by its position.

        Raises:
            TrainingError: it has become unreadable.
        """
        try:
            return self.store.open(self.paths[number])
        except ImageError as error:
            raise TrainingError(
                str(error), "it could be read when the run began: put it back and go on with `resume`"
            ) from error


class PixelStore:
    """Looks at the images of a run before it begins.

    Args:
        folder: cache folder; it keeps digests of the images, and nothing that the encoder made of them.
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

    def features_of(self, records: Sequence[Record]) -> Images:
        """Open every image once, so that broken ones are known before the training begins."""
        paths = [record.path for record in records]
        digests = self.digests.digests(paths)
        first_of = {digest: place for place, digest in reversed(list(enumerate(digests)))}
        firsts = sorted(first_of.values())
        with readers() as threads:
            reasons = threads.map(self._why_broken, [paths[place] for place in firsts])
            progress = tqdm(reasons, "checking images", len(firsts), unit="image", leave=False)
            reason_of = dict(zip(firsts, progress, strict=True))
        rows = [first_of[digest] for digest in digests]
        return Images(
            paths=paths,
            rows=np.array([-1 if reason_of[row] else row for row in rows], dtype=np.int64),
            digests=[digest if len(digest) == 64 else "" for digest in digests],
            broken={
                place: f"{display_name(paths[place])}: {reason_of[row]}"
                for place, row in enumerate(rows)
                if reason_of[row]
            },
            store=self,
        )

    def open(self, path: Path) -> Image.Image:
        """An image, upright.

        Raises:
            ImageError: it cannot be read.
        """
        return open_image(path, min_size=self.preprocessing.resize_size or self.preprocessing.size)

    def _why_broken(self, path: Path) -> str:
        try:
            self.open(path)
        except ImageError as error:
            return str(error).removeprefix(f"{display_name(path)}: ")
        return ""


ImageFeatures: TypeAlias = FeatureRows | Images
"""Some images, or vectors in their place, and the features that a decoder sees of them.

``rows`` has the same number for images of the same bytes and -1 for a broken one, ``digests`` their SHA-256,
``broken`` the reasons by position; ``fetch(images, device)`` gives float32 ``(images, regions, channels)``.
"""

ImageStore: TypeAlias = FeatureStore | VectorStore | PixelStore
"""Makes the features of a run: ``features_of(records)``, of ``shape`` ``(regions, channels)``.

``name`` tells them from those of another store, beside the digests of the images.
"""


def open_source(
    datasets: DatasetOptions,
    options: TrainingOptions,
    initial: Checkpoint | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Encoder, Preprocessing, ImageStore]:
    """The encoder of a run, what it sees images with, and the store that makes features of data sets.

    Args:
        datasets: images or vectors.
        options: the encoder and its options, settled by :meth:`TrainingOptions.with_encoder_for`.
        initial: a checkpoint whose encoder is taken over, which may have been trained; its weights that are
            trained here require gradients, all others do not.
        device: where images are encoded.
        dtype: precision of encoding.

    Raises:
        EncoderError: the encoder is unknown, or its pretrained weights cannot be had.
        DatasetError: the vectors cannot be read.
        OptionError: the vectors do not go with the encoder or with attention, or the encoder has no such
            stage.
        TrainingError: the checkpoint has another encoder, or one that cannot be left out of a checkpoint.
    """
    encoder, preprocessing = _build_encoder(options, initial)
    encoder.requires_grad_(False)
    if datasets.of_vectors:
        vectors = VectorStore(codes_file(datasets.sources()[0]))
        _check_vectors(vectors, options, encoder, preprocessing)
        return encoder, preprocessing, vectors
    if options.finetune_from is not None:
        frozen = frozen_stages(encoder, options.finetune_from)
        tuned = TunedEncoder(encoder, frozen, recompute=options.checkpoint_activations, device=device)
        return encoder, preprocessing, PixelStore(options.cache, tuned, preprocessing, dtype)
    pooled = options.attention == "none"
    store = FeatureStore(options.cache, encoder, preprocessing, pooled=pooled, device=device, dtype=dtype)
    return encoder, preprocessing, store


def _build_encoder(options: TrainingOptions, initial: Checkpoint | None) -> tuple[Encoder, Preprocessing]:
    if options.encoder == NO_ENCODER:
        return NoEncoder(), NO_PREPROCESSING
    preprocessing = encoder_preprocessing(options.encoder, image_size=options.image_size, resize=options.resize)
    if initial is None:
        return build_encoder(options.encoder, preprocessing.size, pretrained=True), preprocessing
    return _encoder_of(initial, options, preprocessing.size), preprocessing


def _encoder_of(initial: Checkpoint, options: TrainingOptions, image_size: int) -> Encoder:
    """The encoder of a checkpoint, which must be the one that the options name."""
    config, encoder = initial.network.config, initial.network.encoder
    if (config.encoder, config.image_size) != (options.encoder, image_size):
        raise TrainingError(
            f"cannot go on from {options.init}, whose options are encoder {config.encoder!r}, "
            f"image_size {config.image_size}",
            "give the same",
        )
    if options.external_encoder:
        pretrained = build_encoder(options.encoder, image_size, pretrained=True)
        if encoder_digest(pretrained) != encoder_digest(encoder):
            raise TrainingError(
                f"the encoder of {options.init} has been trained and is nowhere else to be had",
                "leave out `external_encoder`",
            )
    return encoder


def _check_vectors(
    store: VectorStore, options: TrainingOptions, encoder: Encoder, preprocessing: Preprocessing
) -> None:
    regions, channels = store.shape
    path, attention = store.vectors.path, options.attention
    if attention != "none" and regions == 1:
        raise OptionError(
            f"`attention` {attention} looks at regions, but {path} has one vector an image",
            "leave it out, or give an array (images, regions, features)",
        )
    if options.encoder == NO_ENCODER:
        return
    made, length = output_shape(encoder, preprocessing.size)
    if length != channels or (regions > 1 and made != regions):
        raise OptionError(
            f"`encoder` {options.encoder} at {preprocessing.size} px makes {made} regions of {length} "
            f"features, but {path} has {regions} of {channels}",
            "another encoder or `image_size` made those",
        )


@contextmanager
def readers() -> Iterator[ThreadPoolExecutor]:
    """Threads that read images; after a failure or Ctrl-C those that were not begun are not read."""
    with ThreadPoolExecutor(READERS) as threads:
        try:
            yield threads
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
