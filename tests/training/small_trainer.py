"""A trainer over made-up features and captions: a step takes milliseconds, and no image is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from captioner.checkpoint import Checkpoint
from captioner.datasets import Record
from captioner.decoding.options import DecodingOptions
from captioner.features import FeatureRows
from captioner.metrics.evaluate import References
from captioner.model.encoder import NO_PREPROCESSING, CaptionNetwork
from captioner.training.data import TrainingData, ValidationSet, encode_caption
from captioner.training.folder import RunFolder, TrainingState, load_state
from captioner.training.options import TrainingOptions
from captioner.training.trainer import Trainer
from captioner.vocabulary import Vocabulary

IMAGES = 26
CHANNELS = 12
WORDS = ["a", "dog", "cat", "runs", "sleeps", "on", "the", "grass"]

OPTIONS = {
    "encoder": "none",
    "hidden_size": 16,
    "embedding_size": 16,
    "dropout": 0.0,
    "min_count": 1,
    "epochs": 2,
    "batch_size": 4,
    "patience": 0,
    "device": "cpu",
    "precision": "fp32",
}


def small_data() -> TrainingData:
    """Images with one to three captions of one to nine words; the last four are for validation."""
    chance = np.random.default_rng(0)
    vocabulary = Vocabulary.build([" ".join(WORDS)])
    array = chance.normal(size=(IMAGES, 2, CHANNELS)).astype(np.float16)
    features = FeatureRows(array, np.arange(IMAGES), [""] * IMAGES, {})
    texts = [
        [" ".join(chance.choice(WORDS, chance.integers(1, 10))) for _ in range(chance.integers(1, 4))]
        for _ in range(IMAGES)
    ]
    train, held = range(IMAGES - 4), range(IMAGES - 4, IMAGES)
    records = [Record(f"{place}.jpg", Path(f"{place}.jpg"), tuple(texts[place]), "val") for place in held]
    references = References({record.image_id: record.captions for record in records})
    return TrainingData(
        vocabulary=vocabulary,
        captions=[[encode_caption(text, vocabulary, 30) for text in texts[place]] for place in train],
        texts=[texts[place] for place in train],
        images=list(train),
        features=features,
        validation=[ValidationSet("some", records, list(held), features, references)],
        select_by="CIDEr",
        summary={},
        mixture_weights=None,
        identity="made up",
    )


def small_trainer(output: Path, *, resume: bool = False, **changes: object) -> Trainer:
    """A trainer with fresh weights, or one that goes on.

    Args:
        output: checkpoint to write.
        resume: go on from the state that is there.
        changes: options beside ``OPTIONS``.
    """
    options = TrainingOptions(**{"output": str(output), **OPTIONS, **changes})  # type: ignore[arg-type]
    data, folder = small_data(), RunFolder(output)
    torch.manual_seed(options.seed)
    config = options.model_config(image_size=1, channels=CHANNELS, vocabulary_size=len(data.vocabulary))
    decoding = DecodingOptions(beam_size=options.beam_size)
    checkpoint = Checkpoint(CaptionNetwork(config), data.vocabulary, NO_PREPROCESSING, decoding)
    folder.path.mkdir(exist_ok=True)
    state = load_state(folder.state) if resume else TrainingState({})
    return Trainer(checkpoint, data, options, state, folder, device=torch.device("cpu"), dtype=torch.float32)


def weights(trainer: Trainer) -> torch.Tensor:
    """All trained weights in one row."""
    return torch.cat([value.detach().flatten() for value in trainer.parameters.values()])
