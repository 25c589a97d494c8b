"""Where features come from: images behind an encoder, frozen or in training, or ready-made vectors.

For an encoder in training, images are changed at random, but stay true to their captions: nothing is cut off but
margins, hues stay as they are, because captions name colours, and an image is mirrored only where no caption says left
or right.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from captioner.checkpoint import Checkpoint, encoder_digest
from captioner.datasets import DatasetOptions, Record
from captioner.datasets.codes import codes_file
from captioner.errors import ImageError, OptionError, TrainingError
from captioner.features import DigestIndex, FeatureRows, FeatureStore, VectorStore, readers
from captioner.images import Pixels, Preprocessing, display_name, open_image
from captioner.model import encoder as encoders
from captioner.model.config import NO_ENCODER
from captioner.runtime.torch import TorchEncoder, fuse
from captioner.training.options import TrainingOptions
from captioner.vocabulary import Vocabulary

ALL_STAGES = "all"
_BATCH = 32
_LEAST_AREA = 0.5  # share of the image; the 0.08 of Szegedy et al. 2015 would cut off what captions name
_MOST_ASPECT = 4 / 3
_COLOUR = 0.3  # brightness, contrast and saturation are changed by up to this share
_SIDE = re.compile(r"(?:^|-)(?:left|right)|clockwise$")  # also leftmost, right-hand, bottom-left; not upright


def open_source(
    datasets: DatasetOptions,
    options: TrainingOptions,
    initial: Checkpoint | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[encoders.Encoder, Preprocessing, "ImageStore"]:
    """The encoder of a run, what it sees images with, and the store that makes features of data sets.

    Weights of the encoder that are trained here require gradients, all others do not.

    Args:
        datasets: images or vectors.
        options: the encoder and its options, settled by :meth:`TrainingOptions.with_encoder_for`.
        initial: a checkpoint whose encoder is taken over, which may have been trained.
        device: where images are encoded.
        dtype: precision of encoding.

    Raises:
        EncoderError: the encoder is unknown, or its pretrained weights are not available.
        DatasetError: the vectors cannot be read.
        OptionError: the vectors do not go with the encoder or with attention, or the encoder has no such stage.
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
    source = TorchEncoder(encoder, preprocessing, device=device, dtype=dtype)
    return encoder, preprocessing, FeatureStore(options.cache, source, pooled=pooled)


def _build_encoder(options: TrainingOptions, initial: Checkpoint | None) -> tuple[encoders.Encoder, Preprocessing]:
    """The encoder that the options name: the pretrained one, or that of a checkpoint."""
    if options.encoder == NO_ENCODER:
        return encoders.NoEncoder(), encoders.NO_PREPROCESSING
    preprocessing = encoders.encoder_preprocessing(
        options.encoder, image_size=options.image_size, resize=options.resize
    )
    if initial is None:
        return encoders.build_encoder(options.encoder, preprocessing.size, pretrained=True), preprocessing
    config, encoder = initial.network.config, initial.network.encoder
    if (config.encoder, config.image_size) != (options.encoder, preprocessing.size):
        raise TrainingError(
            f"cannot go on from {options.init}, whose options are encoder {config.encoder!r}, "
            f"image_size {config.image_size}",
            "give the same",
        )
    if options.external_encoder:
        pretrained = encoders.build_encoder(options.encoder, preprocessing.size, pretrained=True)
        if encoder_digest(pretrained) != encoder_digest(encoder):
            what = f"the encoder of {options.init} has been trained and is stored nowhere else"
            raise TrainingError(what, "leave out `external_encoder`")
    return encoder, preprocessing


def _check_vectors(
    store: VectorStore, options: TrainingOptions, encoder: encoders.Encoder, preprocessing: Preprocessing
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
    made, length = encoders.output_shape(encoder, preprocessing.size)
    if length != channels or (regions > 1 and made != regions):
        raise OptionError(
            f"`encoder` {options.encoder} at {preprocessing.size} px makes {made} regions of {length} features, "
            f"but {path} has {regions} of {channels}",
            "another encoder or `image_size` made those",
        )


class TunedEncoder:
    """Runs an encoder so that its last stages can be trained.

    The encoder stays in evaluation mode: batch-norm keeps the statistics that it was pretrained with (those of a few
    images would be noise), while its scale and shift are trained like other weights of their stage; nothing is dropped
    at random. The stages below the first trained one build no graph, and their batch-norm is folded into the
    convolutions.

    Args:
        encoder: the encoder; weights of the trained stages are made to require gradients, all others not to.
        first: how many stages stay as they are.
        recompute: keep only the activations between stages, and compute those within a stage again when its gradient
            is due (Chen et al. 2016, "Training deep nets with sublinear memory cost").
        device: where to run; the encoder is moved there.
    """

    def __init__(self, encoder: encoders.Encoder, first: int, *, recompute: bool, device: torch.device) -> None:
        self.encoder = encoder.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recompute = recompute
        encoder.requires_grad_(False)
        parts = tuple(part for stage in encoder.stages[:first] for part in stage.parts)
        modules = [part for part in parts if isinstance(part, torch.nn.Module)]
        # What is not made of modules alone is a transformer, which has no batch-norm to fold.
        whole = len(modules) == len(parts)
        self.frozen = fuse(torch.nn.Sequential(*modules)) if whole else encoders.Stage("frozen", parts)
        self.trained = encoder.stages[first:]
        for stage in self.trained:
            for parameter in stage.parameters():
                parameter.requires_grad_(True)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Region features.

        Shapes: ``(batch, 3, size, size)`` normalised pixels -> ``(batch, regions, channels)``.
        """
        with torch.no_grad():
            features = self.frozen(images)
        for stage in self.trained:
            if self.recompute and torch.is_grad_enabled():
                # Nothing in an encoder in evaluation mode draws random numbers.
                features = checkpoint(stage, features, use_reentrant=False, preserve_rng_state=False)
            else:
                features = stage(features)
        return encoders.as_regions(features)


def frozen_stages(encoder: encoders.Encoder, first_trained: str) -> int:
    """How many stages stay as they are, by the number (from 1) or name of the first one to train, or ``all``.

    Raises:
        OptionError: there is no such stage; the message lists those that there are.
    """
    names = [stage.name for stage in encoder.stages]
    numbers = [str(number) for number in range(1, len(names) + 1)]
    if first_trained == ALL_STAGES:
        return 0
    for known in (names, numbers):
        if first_trained in known:
            return known.index(first_trained)
    raise OptionError(
        f"`finetune_from` {first_trained}: {encoder.name} has no such stage; "
        f"it has {encoders.listed(encoder.stages)}; {ALL_STAGES} trains every one"
    )


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
        self.shape = encoders.output_shape(encoder.encoder, preprocessing.size)
        self.digests = DigestIndex(Path(folder).expanduser() / "features" / "digests.sqlite")
        facts = json.dumps([encoder_digest(encoder.encoder), preprocessing.to_dict()])
        key = hashlib.sha256(facts.encode()).hexdigest()[:16]
        self.name = f"{encoder.encoder.name}-{key}"

    def features_of(self, records: Sequence[Record]) -> "Images":
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


@dataclass(frozen=True)
class Images:
    """Some images, which are encoded with the weights that the encoder of their store has at that moment.

    Attributes:
        rows: for each image, the position of the first one of the same bytes; -1 for a broken image.
        digests: for each image, the SHA-256 of its bytes; empty if it cannot be read.
        broken: why images are broken, by their position.
    """

    paths: Sequence[Path]
    rows: np.typing.NDArray[np.int64]
    digests: Sequence[str]
    broken: Mapping[int, str]
    store: PixelStore

    @torch.inference_mode()
    def fetch(self, images: Sequence[int], device: torch.device) -> torch.Tensor:
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

    def encode(self, pixels: Sequence[Pixels], device: torch.device) -> torch.Tensor:
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
            advice = "it could be read when the run began: put it back and go on with `resume`"
            raise TrainingError(str(error), advice) from error


def mirrorable(captions: Sequence[Sequence[int]], vocabulary: Vocabulary) -> bool:
    """Whether captions, as ids, stay true when their image is mirrored: none has a word for one side of it."""
    words = (word for caption in captions for word in vocabulary.decode(caption))
    return not any(_SIDE.search(word) for word in words)


def augmented_pixels(
    image: Image.Image, preprocessing: Preprocessing, augment: str, chance: np.random.Generator, *, mirror: bool
) -> Pixels:
    """An image as an encoder is to see it in training.

    Args:
        image: upright RGB, as ``open_image`` gives it.
        preprocessing: scales what is left of it.
        augment: ``none``; ``flip`` mirrors every second image; ``crop`` also takes a random part, at least half of the
            area, and changes brightness, contrast and saturation.
        chance: draws all that is random.
        mirror: whether the image may be mirrored, see :func:`mirrorable`.

    Returns:
        uint8 ``(size, size, 3)``.
    """
    if augment == "none":
        return preprocessing.pixels(image)
    mirrored = chance.random() < 0.5 and mirror  # drawn in any case: the rest does not depend on it
    if augment == "crop":
        image = image.crop(random_box(image.size, chance))
    pixels = preprocessing.pixels(image)
    if augment == "crop":
        image = Image.fromarray(pixels)
        for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = change(image).enhance(chance.uniform(1 - _COLOUR, 1 + _COLOUR))
        pixels = np.array(image)
    return np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels


def random_box(size: tuple[int, int], chance: np.random.Generator) -> tuple[int, int, int, int]:
    """A random part of an image, in pixels: left, top, right, bottom.

    As in Szegedy et al. 2015, section 6: the share of the area is uniform, the aspect ratio is log-uniform, here
    relative to that of the image and always such that the part fits into it.
    """
    area = chance.uniform(_LEAST_AREA, 1)
    widest = math.log(min(_MOST_ASPECT, 1 / area))
    aspect = math.exp(chance.uniform(-widest, widest))
    box = []
    for side, share in zip(size, (math.sqrt(area * aspect), math.sqrt(area / aspect)), strict=True):
        length = min(side, max(1, round(side * share)))
        start = int(chance.integers(side - length + 1))
        box.append((start, start + length))
    (left, right), (top, bottom) = box
    return left, top, right, bottom


ImageFeatures = FeatureRows | Images
"""Some images, or vectors in their place, and the features that a decoder sees of them.

``rows`` has the same number for images of the same bytes and -1 for a broken one, ``digests`` their SHA-256,
``broken`` the reasons by position; :func:`fetch` gives the features.
"""


def fetch(features: ImageFeatures, images: Sequence[int], device: torch.device) -> torch.Tensor:
    """Give features of whole images by their position: float32 ``(images, regions, channels)``."""
    if isinstance(features, Images):
        return features.fetch(images, device)
    return torch.from_numpy(features.fetch(images)).to(device)


ImageStore = FeatureStore | VectorStore | PixelStore
"""Makes the features of a run: ``features_of(records)``, of ``shape`` ``(regions, channels)``.

``name`` distinguishes them from those of another store, beside the digests of the images.
"""
