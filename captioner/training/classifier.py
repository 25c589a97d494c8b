"""Giving a checkpoint the classifier of its encoder, fitted to it where the encoder was trained further."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from captioner.checkpoint import Checkpoint, encoder_digest, load_checkpoint
from captioner.datasets import DatasetOptions
from captioner.errors import DatasetError, OptionError
from captioner.features import FeatureStore
from captioner.model.classifier import fit_classifier, pretrained_classifier
from captioner.model.encoder import Encoder, build_encoder
from captioner.runtime.export import graphs_of
from captioner.runtime.torch import TorchEncoder, choose_device, choose_dtype
from captioner.saving import save_checkpoint
from captioner.training.data import read_splits
from captioner.training.options import ClassifierOptions
from captioner.weights import find_weights


@dataclass(frozen=True)
class Agreement:
    """How well a fitted classifier says what the encoder's own one said.

    Attributes:
        images: fitted on.
        held_out: images of the validation split, on which the two are compared.
        same: share of these with the same most probable class.
        same_where_sure: the same among those of which the own one was at least half sure; None without any.
    """

    images: int
    held_out: int
    same: float
    same_where_sure: float | None


def add_classifier(datasets: DatasetOptions | None, options: ClassifierOptions) -> Agreement | None:
    """Write a checkpoint again with the classifier of its encoder.

    Args:
        datasets: images to fit and compare on; needed only if the encoder was trained further.
        options: which checkpoint, and where the new one goes.

    Returns:
        How well a fitted classifier does; None if the encoder is the pretrained one, whose own needs no fit.

    Raises:
        CaptionerError: the checkpoint, the pretrained encoder, its classifier or the data are not available, or images
            are needed and none given.
    """
    checkpoint = load_checkpoint(find_weights(options.weights))
    config, encoder = checkpoint.network.config, checkpoint.network.encoder
    classifier = pretrained_classifier(config.encoder)
    pretrained = build_encoder(config.encoder, config.image_size, pretrained=True)
    agreement = None
    if encoder_digest(pretrained) != encoder_digest(encoder):
        if datasets is None:
            what = "the encoder of this checkpoint was trained, so its classifier must be fitted"
            raise OptionError(what, "say with `dataset` on which images")
        classifier, agreement = _fitted(checkpoint, pretrained, classifier, datasets, options)
    decoding = replace(checkpoint.decoding, tag_threshold=options.tag_threshold)
    story = {"fitted": None if agreement is None else vars(agreement)}
    training = {**checkpoint.training, "classifier": story}
    written = replace(checkpoint, classifier=classifier, decoding=decoding, training=training)
    graphs = graphs_of(written, lambda line: print(line, file=sys.stderr))
    save_checkpoint(Path(options.output).expanduser(), replace(written, graphs=graphs))
    return agreement


def _fitted(
    checkpoint: Checkpoint,
    pretrained: Encoder,
    classifier: torch.nn.Linear,
    datasets: DatasetOptions,
    options: ClassifierOptions,
) -> tuple[torch.nn.Linear, Agreement]:
    """The classifier for the trained encoder, and how it does on the validation images."""
    if datasets.of_vectors:
        raise OptionError("`dataset` codes holds no images", "a classifier is fitted on images")
    train, held_out = ([record.path for _, part in parts for record in part] for parts in read_splits(datasets))
    paths = train + held_out
    own = _means(pretrained, checkpoint, paths, options)
    trained = _means(checkpoint.network.encoder, checkpoint, paths, options)
    sound = own.isfinite().all(dim=1)
    fit, compare = sound.clone(), sound
    fit[len(train) :] = False
    compare[: len(train)] = False
    if not (fit.any() and compare.any()):
        raise DatasetError("there are no images to fit the classifier on, or none to see how it does")
    wanted = classifier(own)
    fitted = fit_classifier(classifier, trained[fit], wanted[fit])
    wanted, found = wanted[compare], fitted(trained[compare])
    same = wanted.argmax(dim=1) == found.argmax(dim=1)
    sure = wanted.softmax(dim=1).amax(dim=1) >= 0.5
    return fitted, Agreement(
        images=int(fit.sum()),
        held_out=len(same),
        same=float(same.float().mean()),
        same_where_sure=float(same[sure].float().mean()) if sure.any() else None,
    )


def _means(encoder: Encoder, checkpoint: Checkpoint, paths: Sequence[Path], options: ClassifierOptions) -> torch.Tensor:
    """The mean region of each image, on the CPU; not-a-number for images that cannot be read."""
    device = choose_device(options.device)
    dtype = choose_dtype(options.precision, device)
    source = TorchEncoder(encoder, checkpoint.preprocessing, device=device, dtype=dtype)
    found = FeatureStore(options.cache, source, pooled=True).collect(paths)
    means = torch.full((len(paths), checkpoint.network.config.channels), torch.nan)
    readable = [place for place, row in enumerate(found.rows) if row >= 0]
    means[readable] = torch.from_numpy(found.fetch(readable)).squeeze(1)
    return means
