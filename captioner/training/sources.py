"""What is trained on: photos behind an encoder, or ready-made vectors."""

from __future__ import annotations

from typing import NamedTuple

import torch

from captioner.checkpoint import Checkpoint, encoder_digest
from captioner.datasets import DatasetOptions
from captioner.datasets.codes import codes_file
from captioner.errors import OptionError, TrainingError
from captioner.features.store import FeatureStore
from captioner.features.vectors import VectorStore
from captioner.images import Preprocessing
from captioner.model.config import NO_ENCODER
from captioner.model.encoder import Encoder, build_encoder, encoder_preprocessing, output_shape
from captioner.model.no_encoder import NO_PREPROCESSING, NoEncoder
from captioner.training.finetuning import TunedEncoder, frozen_stages
from captioner.training.options import TrainingOptions
from captioner.training.photo_features import PhotoStore
from captioner.training.pictures import PictureStore


class Source(NamedTuple):
    """Where features come from, and what the model will see pictures with.

    Attributes:
        encoder: goes into the checkpoint.
        preprocessing: goes with it.
        store: gives the features.
    """

    encoder: Encoder
    preprocessing: Preprocessing
    store: PhotoStore


def open_source(
    datasets: DatasetOptions,
    options: TrainingOptions,
    initial: Checkpoint | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Source:
    """The source of features of data sets.

    Args:
        datasets: photos or vectors.
        options: the encoder and its options, settled by :meth:`TrainingOptions.with_encoder_for`.
        initial: a checkpoint whose encoder is taken over, which may have been trained; its weights that are
            trained here require gradients, all others do not.
        device: where photos are encoded.
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
        return Source(encoder, preprocessing, vectors)
    if options.finetune_from is not None:
        frozen = frozen_stages(encoder, options.finetune_from)
        tuned = TunedEncoder(encoder, frozen, recompute=options.checkpoint_activations, device=device)
        return Source(encoder, preprocessing, PictureStore(options.cache, tuned, preprocessing, dtype))
    pooled = options.attention == "none"
    store = FeatureStore(options.cache, encoder, preprocessing, pooled=pooled, device=device, dtype=dtype)
    return Source(encoder, preprocessing, store)


def _build_encoder(options: TrainingOptions, initial: Checkpoint | None) -> tuple[Encoder, Preprocessing]:
    if options.encoder == NO_ENCODER:
        return NoEncoder(), NO_PREPROCESSING
    preprocessing = encoder_preprocessing(
        options.encoder, image_size=options.image_size, resize=options.resize
    )
    if initial is None:
        return build_encoder(options.encoder, preprocessing.size, pretrained=True), preprocessing
    return _encoder_of(initial, options, preprocessing.size), preprocessing


def _encoder_of(initial: Checkpoint, options: TrainingOptions, image_size: int) -> Encoder:
    """The encoder of a checkpoint, which must be the one that the options name."""
    config, encoder = initial.network.config, initial.network.encoder
    if (config.encoder, config.image_size) != (options.encoder, image_size):
        raise TrainingError(
            f"cannot go on from {options.init}, whose options are encoder {config.encoder!r}, "
            f"image_size {config.image_size}; give the same"
        )
    if options.external_encoder:
        pretrained = build_encoder(options.encoder, image_size, pretrained=True)
        if encoder_digest(pretrained) != encoder_digest(encoder):
            raise TrainingError(
                f"the encoder of {options.init} has been trained and is nowhere else to be had; "
                "leave out --external-encoder"
            )
    return encoder


def _check_vectors(
    store: VectorStore, options: TrainingOptions, encoder: Encoder, preprocessing: Preprocessing
) -> None:
    regions, channels = store.shape
    path, attention = store.vectors.path, options.attention
    if attention != "none" and regions == 1:
        raise OptionError(
            f"--attention {attention} looks at regions, but {path} has one vector an image; leave it out, or "
            "give an array (images, regions, features)"
        )
    if options.encoder == NO_ENCODER:
        return
    made, length = output_shape(encoder, preprocessing.size)
    if length != channels or (regions > 1 and made != regions):
        raise OptionError(
            f"--encoder {options.encoder} at {preprocessing.size} px makes {made} regions of {length} "
            f"features, but {path} has {regions} of {channels}; another encoder or --image-size made those"
        )
