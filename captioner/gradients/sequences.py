"""Real captions with the features of their images, for trained models to run over."""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from captioner.checkpoint import Checkpoint
from captioner.datasets.records import Record
from captioner.errors import DatasetError
from captioner.features import FeatureRows, FeatureStore, VectorStore
from captioner.gradients.options import GradientOptions
from captioner.model.config import NO_ENCODER
from captioner.vocabulary import END, START, caption_words


def caption_sequences(
    name: str, checkpoint: Checkpoint, records: Sequence[Record], options: GradientOptions
) -> tuple[Tensor, Tensor]:
    """The longest captions of the data set, one an image, cut to the length of the shortest among them.

    Args:
        name: what to call the checkpoint in messages.
        checkpoint: the model that reads them.
        records: images with captions; or vectors, if the model takes these.
        options: how many, and how long at most.

    Returns:
        Features ``(sequences, regions, channels)`` and ids ``(sequences, length + 1)``.

    Raises:
        DatasetError: an image is broken, or the data set has not what the model takes.
        CacheError: features cannot be kept on disk.
    """
    vocabulary = checkpoint.vocabulary
    longest = [(max((caption_words(text) for text in record.captions), key=len), record) for record in records]
    longest.sort(key=lambda pair: -len(pair[0]))
    chosen = longest[: options.sequences]
    length = min(options.length, len(chosen[-1][0]) + 1)
    if length < options.length:
        print(f"{name}: captions give sequences of {length} words, not {options.length}", file=sys.stderr)
    ids = [[START, *vocabulary.encode(words), END][: length + 1] for words, _ in chosen]
    return _features(name, checkpoint, [record for _, record in chosen], options), torch.tensor(ids)


def _features(name: str, checkpoint: Checkpoint, records: Sequence[Record], options: GradientOptions) -> Tensor:
    config, device = checkpoint.network.config, torch.device("cpu")
    store: FeatureStore | VectorStore
    if records[0].row is not None:
        store = VectorStore(records[0].path)
    elif config.encoder == NO_ENCODER:
        raise DatasetError(f"{name} was trained on vectors and sees no images", "give its `dataset` codes")
    else:
        store = FeatureStore(
            options.cache,
            checkpoint.network.encoder,
            checkpoint.preprocessing,
            pooled=config.attention == "none",
            device=device,
            dtype=torch.float32,
        )
    if store.shape[-1] != config.channels:
        raise DatasetError(f"{name} takes vectors of length {config.channels}, not {store.shape[-1]}")
    found: FeatureRows = store.features_of(records)
    if found.broken:
        raise DatasetError(f"{len(found.broken)} images are broken: {next(iter(found.broken.values()))}")
    return found.fetch(range(len(records)), device)
