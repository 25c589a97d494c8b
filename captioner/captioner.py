"""The one service that every door uses: images in, captions out."""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from captioner.caption import Calibration, Caption
from captioner.checkpoint import Checkpoint, encoder_digest, load_checkpoint, with_encoder
from captioner.concepts import Tagger, Written, write_with_tags
from captioner.decoding.beam import Hypothesis
from captioner.decoding.filters import special_ids
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.errors import CheckpointError, EncoderError, ImageError, OptionError
from captioner.images import DEFAULT_MAX_PIXELS, Pixels, Source
from captioner.model.config import NO_ENCODER
from captioner.model.encoder import CANNOT_SEE, output_shape
from captioner.model.inference import EnsembleDecoder, PackedEncoder, choose_device, choose_dtype, fuse
from captioner.scoring import Replay, Score, replay, score_texts
from captioner.vocabulary import detokenize
from captioner.weights import find_weights

ImageInput = Source | Image.Image | Pixels
Weights = str | Path | Sequence[str | Path] | None

_LARGEST_FEATURE = 1e12
_NO_VECTORS = "checkpoints with different encoders write together about images, not about vectors"
_SHOWN = 40  # letters of a word in a message


class Captioner:
    """Writes captions with one checkpoint, or with several: the mean of their probabilities decides.

    Each of several checkpoints sees images as it was trained to; they must have one vocabulary. Decoding
    options are those of the first. Captions of several have no confidence.

    Args:
        checkpoint: the model, or the models.
        device: ``auto`` (cuda, mps or cpu, what is there) or the name of a torch device.
        precision: of the encoder: ``fp32``, ``bf16``, or ``auto``, which is fp32 here: bf16 is faster where
            the hardware computes it, but changes some captions, so it must be asked for.
            The decoder always works in float32; it takes a small part of the time.
        names: what messages call several models, such as their files.

    Raises:
        OptionError: the device or the precision is not available, or the models do not go together.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | Sequence[Checkpoint],
        *,
        device: str = "auto",
        precision: str = "auto",
        names: Sequence[str] | None = None,
    ) -> None:
        checkpoints = [checkpoint] if isinstance(checkpoint, Checkpoint) else list(checkpoint)
        self.device = choose_device(device)
        # benchmarks/precision.py: in bfloat16 about one caption in seven comes out differently.
        self.dtype = choose_dtype("fp32" if precision == "auto" else precision, self.device)
        encoder, decoder = combine(checkpoints, names=names)
        first, configs = checkpoints[0], [each.network.config for each in checkpoints]
        self.encoder = encoder.to(self.device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.decoder = decoder.to(self.device)
        # Whether regions matter, or only their mean, is what the most demanding model says.
        self.config = next((config for config in configs if config.attention != "none"), configs[0])
        self.preprocessing = encoder.preprocessing
        self.vocabulary, self.training = first.vocabulary, first.training
        self._special = special_ids(self.vocabulary)
        self.digest = "+".join(each.digest for each in checkpoints)
        # What was learnt of each model alone does not hold for their mean.
        self.calibration = first.calibration if len(checkpoints) == 1 else None
        self.options = first.decoding
        self.tagger: Tagger | None = None
        self._several = len(encoder.encoders) > 1
        if self._several:  # the classifier of the first would look at the regions of all
            self.options = replace(self.options, tag_threshold=0.0)
        elif first.classifier is not None:
            self.tagger = Tagger(first.classifier.to(self.device), self.vocabulary)

    @classmethod
    def load(
        cls,
        weights: Weights = None,
        *,
        device: str = "auto",
        precision: str = "auto",
        encoder: str | None = None,
        image_size: int | None = None,
        resize: str | None = None,
    ) -> "Captioner":
        """Load a checkpoint, or several that write together.

        Args:
            weights: a file or a shipped name, see :func:`find_weights`; or a list of these.
            device: see :class:`Captioner`.
            precision: see :class:`Captioner`.
            encoder: for a checkpoint that was trained on vectors, what made them; without it such a
                checkpoint takes vectors only, see :meth:`decode`.
            image_size: side of the image that this encoder saw; by default its own.
            resize: how it saw images, ``squash`` (default) or ``crop``.

        Raises:
            CheckpointError: the file is absent, broken or foreign.
            EncoderError: the encoder is not available, or gives other vectors than the checkpoint takes.
            OptionError: the device or the precision is not available, there is an encoder already, or
                several checkpoints do not go together.
        """
        names = [weights] if weights is None or isinstance(weights, str | Path) else list(weights)
        checkpoints = [load_model(name, encoder=encoder, image_size=image_size, resize=resize) for name in names]
        return cls(checkpoints, device=device, precision=precision, names=[str(name) for name in names])

    @property
    def sees_images(self) -> bool:
        """Whether there is an encoder; else only ready-made vectors can be captioned."""
        return self.config.encoder != NO_ENCODER

    def check_sees_images(self) -> None:
        """Accept to be given images.

        Raises:
            EncoderError: this is a model of vectors, which cannot encode images; says what to do.
        """
        if not self.sees_images:
            raise EncoderError(CANNOT_SEE)

    # The names of the release before.
    sees_pictures = sees_images
    check_sees_pictures = check_sees_images

    def check_takes_vectors(self) -> None:
        """Accept to be given ready-made vectors, as every single checkpoint does.

        Raises:
            OptionError: there are several encoders, each of which makes vectors of its own.
        """
        if self._several:
            raise OptionError(_NO_VECTORS)

    def preprocess(self, source: ImageInput, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Pixels:
        """Open an image and scale it for the encoder.

        Args:
            source: a path, bytes or file object; or a Pillow image, taken as it is; or an array from
                this method, returned as it is.
            max_pixels: larger files are refused before they are decoded.

        Returns:
            uint8 ``(size, size, 3)``.

        Raises:
            ImageError: the image is absent, broken or too large, or no image at all.
            EncoderError: this is a model of vectors, which cannot encode images.
        """
        self.check_sees_images()
        if isinstance(source, np.ndarray):
            if source.dtype != np.uint8 or source.shape != self.preprocessing.shape:
                raise ImageError(
                    f"an array must be uint8 {self.preprocessing.shape} as preprocess() makes it, "
                    f"not {source.dtype} {source.shape}",
                    "others go through PIL.Image.fromarray",
                )
            return source
        if isinstance(source, Image.Image):
            try:
                return self.preprocessing.pixels(source)
            except (OSError, ValueError, SyntaxError) as error:  # Pillow reads a file when pixels are asked for
                raise ImageError(f"broken Pillow image ({error})") from error
        if not isinstance(source, str | bytes | os.PathLike) and not hasattr(source, "read"):
            raise ImageError(f"not an image: {type(source).__name__}", "give a path, bytes or a Pillow image")
        return self.preprocessing.load(source, max_pixels=max_pixels)

    @torch.inference_mode()
    def encode(self, pixels: Sequence[Pixels]) -> torch.Tensor:
        """Compute region features of preprocessed images: float32 ``(images, regions, channels)``.

        Those of several encoders are packed into one row for each image.

        Raises:
            CheckpointError: the encoder's weights make no sense, so that it overflows.
        """
        batch = torch.from_numpy(np.stack(list(pixels))).to(self.device)
        regions: torch.Tensor = self.encoder(batch, self.dtype)
        # Written so that not-a-number fails too. The decoder could do nothing but crash on these.
        if not (regions.abs() <= _LARGEST_FEATURE).all():
            raise CheckpointError("the encoder gives no numbers: the checkpoint is damaged")
        return regions

    def caption(
        self,
        images: Sequence[ImageInput],
        options: DecodingOptions | None = None,
        *,
        attention: bool = True,
    ) -> list[list[Caption]]:
        """Caption a batch of images.

        Args:
            images: a list of images, each as :meth:`preprocess` takes it.
            options: decoding options; the checkpoint's own if absent.
            attention: see :meth:`decode`.

        Returns:
            For each image its captions: the best first when searching, in the order drawn when sampling.

        Raises:
            ImageError: an image is absent, broken or too large.
            OptionError: a single image instead of a list.
        """
        if isinstance(images, str | bytes | os.PathLike | Image.Image) or hasattr(images, "read"):
            raise OptionError("caption() takes a list of images", "put a single one into brackets")
        pixels = [self.preprocess(image) for image in images]
        if not pixels:
            return []
        seeds = self.seeds(pixels, options)
        return self.decode(self.encode(pixels), options, seeds=seeds, attention=attention)

    def decode(
        self,
        regions: torch.Tensor,
        options: DecodingOptions | None = None,
        *,
        seeds: list[int] | None = None,
        attention: bool = True,
    ) -> list[list[Caption]]:
        """Write captions for encoded images.

        Args:
            regions: ``(images, regions, channels)``, from :meth:`encode` or elsewhere; or
                ``(images, channels)``, one vector an image.
            options: decoding options; the checkpoint's own if absent.
            seeds: see :meth:`seeds`.
            attention: whether captions of a model with attention say where it looked, which takes a second
                pass over their words.

        Raises:
            OptionError: the vectors are of another shape than the model takes, or hold no numbers; or
                tags are asked for, and the checkpoint has no classifier.
        """
        regions = self._regions(regions)
        if not len(regions):
            return []
        options = options or self.options
        written = self._write(regions, options, seeds)
        # What was learnt of captions searched for says nothing of captions drawn by chance.
        rating = None if options.sampling else self.calibration
        replays: Iterator[Replay] = iter(())
        if attention and self.decoder.attends:
            owners = [image for image, each in enumerate(written) for _ in each.hypotheses]
            sentences = [hypothesis.words for each in written for hypothesis in each.hypotheses]
            replays = iter(replay(self.decoder, regions, sentences, owners=owners, attention=True))
        return [
            [self._caption(hypothesis, of_image, rating, next(replays, None)) for hypothesis in of_image.hypotheses]
            for of_image in written
        ]

    def _write(self, regions: torch.Tensor, options: DecodingOptions, seeds: list[int] | None) -> list[Written]:
        if options.sampling or not options.tag_threshold:
            return [Written(found) for found in decode(self.decoder, regions, options, self._special, seeds)]
        if self.tagger is None:
            raise OptionError(
                f"`tag_threshold` {options.tag_threshold}: this checkpoint has no classifier to name things",
                "give it one with captioner classifier, or leave the option out",
            )
        return write_with_tags(self.decoder, regions, options, self._special, self.tagger)

    def _regions(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors from anywhere as float32 ``(images, regions, channels)`` where the decoder is."""
        regions = vectors[:, None] if vectors.ndim == 2 else vectors
        shapes = self.decoder.shapes
        width, most = (sum(map(math.prod, shapes)), 1) if self._several else (self.config.channels, math.inf)
        if regions.ndim != 3 or not 1 <= regions.shape[1] <= most or regions.shape[2] != width:
            self.check_takes_vectors()
            shape = tuple(vectors.shape)
            raise OptionError(f"vectors must be (images, regions, {width}) for this model, not {shape}")
        regions = regions.to(self.device, torch.float32)
        if not (regions.abs() <= _LARGEST_FEATURE).all():
            raise OptionError("the vectors hold values that are infinite or not numbers")
        return regions

    def score(
        self, regions: torch.Tensor, texts: Sequence[str], *, runners_up: int = 0, attention: bool = False
    ) -> list[Score]:
        """Score given texts: log P(text | image) and what it is made of.

        Args:
            regions: as :meth:`decode` takes them.
            texts: one for each image.
            runners_up: how many of the most probable words to list at each place of a text.
            attention: whether scores of a model with attention say where it looks at each word.

        Raises:
            UnknownWordsError: a text holds words that the model does not know.
            OptionError: as :meth:`decode` and :func:`captioner.scoring.score_texts`.
        """
        regions = self._regions(regions)
        return score_texts(self.decoder, self.vocabulary, regions, texts, runners_up=runners_up, attention=attention)

    def seeds(self, pixels: Sequence[np.typing.NDArray[Any]], options: DecodingOptions | None = None) -> list[int]:
        """Make seeds of sampling, one for each image, from its pixels (or its vectors) and ``options.seed``.

        So an image gets the same captions wherever it stands in a batch, a folder or a shard.
        """
        key = str((options or self.options).seed).encode()
        digests = (hashlib.blake2b(array.tobytes(), digest_size=7, key=key).digest() for array in pixels)
        return [int.from_bytes(digest, "big") for digest in digests]

    def _caption(
        self, hypothesis: Hypothesis, written: Written, rating: Calibration | None, replayed: Replay | None
    ) -> Caption:
        words = tuple(self.vocabulary.decode(hypothesis.words))
        confidence = rating.confidence(hypothesis.log_prob, len(words)) if rating else None
        return Caption(
            text=detokenize(written.spoken(words, hypothesis.words)),
            log_prob=hypothesis.log_prob,
            words=words,
            word_log_probs=hypothesis.word_log_probs,
            end_log_prob=hypothesis.end_log_prob,
            attention=replayed and replayed.attention,
            confidence=confidence,
            tags=tuple(tag.name for tag in written.tags),
        )


def combine(
    checkpoints: Sequence[Checkpoint], *, names: Sequence[str] | None = None
) -> tuple[PackedEncoder, EnsembleDecoder]:
    """Make one network of one or several checkpoints, ready for use.

    Those with the same encoder and preprocessing share what it makes of an image.

    Args:
        checkpoints: at least one. Their encoders are copied, their decoders are not.
        names: what messages call them, such as their files.

    Raises:
        OptionError: there is none, or they do not go together.
    """
    if not checkpoints:
        raise OptionError("name at least one checkpoint")
    names = names or [f"checkpoint {number}" for number in range(1, len(checkpoints) + 1)]
    for name, checkpoint in zip(names[1:], checkpoints[1:], strict=True):
        for number, pair in enumerate(zip_longest(checkpoints[0].vocabulary.words, checkpoint.vocabulary.words)):
            if pair[0] != pair[1]:
                words = ["nothing" if word is None else repr(word[:_SHOWN]) for word in pair]
                raise OptionError(
                    f"{names[0]} and {name} cannot be averaged: word {number} is {words[0]} in the one and "
                    f"{words[1]} in the other",
                    "they must have the same words in the same order",
                )
    networks = [checkpoint.network for checkpoint in checkpoints]
    digests = [""] if len(networks) == 1 else [encoder_digest(network.encoder) for network in networks]
    keys = [
        (repr(checkpoint.preprocessing), digest, checkpoint.network.config.channels)
        for checkpoint, digest in zip(checkpoints, digests, strict=True)
    ]
    distinct = sorted(set(keys))  # an order of their own, so that the order of the checkpoints changes nothing
    chosen = [checkpoints[keys.index(key)] for key in distinct]
    shapes: list[tuple[int, ...]] = [()]
    if len(chosen) > 1:
        if any(network.config.encoder == NO_ENCODER for network in networks):
            raise OptionError(f"{' and '.join(names)}: were not trained on the same kind of vectors")
        shapes = [output_shape(each.network.encoder.eval(), each.preprocessing.size) for each in chosen]
    # Fused before they are rounded: folding batch-norm in bfloat16 would cost accuracy.
    encoder = PackedEncoder([fuse(each.network.encoder) for each in chosen], [each.preprocessing for each in chosen])
    places = [distinct.index(key) for key in keys]
    return encoder, EnsembleDecoder([network.decoder.eval() for network in networks], places, shapes)


def load(weights: Weights = None, *, device: str = "auto", precision: str = "auto") -> Captioner:
    """Load a captioner; :meth:`Captioner.load` has more options.

    Args:
        weights: a checkpoint file or a shipped name, by default the shipped weights; or a list of these, which write
            together.
        device: ``auto`` (cuda, mps or cpu) or the name of a torch device.
        precision: of the encoder: ``fp32``, ``bf16``, or ``auto``, which is fp32.

    Raises:
        CheckpointError: the file is missing, broken or not a checkpoint of captioner.
        OptionError: the device or the precision is not available, or the checkpoints do not fit together.
    """
    return Captioner.load(weights, device=device, precision=precision)


def load_model(
    weights: str | Path | None = None,
    *,
    encoder: str | None = None,
    image_size: int | None = None,
    resize: str | None = None,
) -> Checkpoint:
    """Load a checkpoint; see :meth:`Captioner.load`."""
    if encoder is None and not (image_size is None and resize is None):
        raise OptionError("`image_size` and `resize` belong to `encoder`", "give it too, or leave them out")
    checkpoint = load_checkpoint(find_weights(weights))
    if encoder is None:
        return checkpoint
    return with_encoder(checkpoint, encoder, image_size=image_size, resize=resize)
