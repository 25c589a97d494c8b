"""Judging a model in training by captions that it writes itself, never under teacher forcing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from captioner.datasets import Record
from captioner.decoding.filters import special_ids
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.metrics.evaluate import References, Scores, score
from captioner.model.decoder import Decoder
from captioner.training.distributed import ALONE, World
from captioner.training.encoding import ImageFeatures
from captioner.vocabulary import Vocabulary, detokenize

_BATCH = 64
_COUNTS = ("mean length", "distinct words")  # all else is shown x100


@dataclass(frozen=True)
class ValidationSet:
    """The validation images of one data set.

    Attributes:
        label: name of the data set.
        records: images and references.
        images: position of each record in ``features``.
        features: encoded images.
        references: the references, tokenised once.
    """

    label: str
    records: Sequence[Record]
    images: Sequence[int]
    features: ImageFeatures
    references: References

    def score(
        self,
        decoder: Decoder,
        vocabulary: Vocabulary,
        options: DecodingOptions,
        device: torch.device,
        world: World = ALONE,
    ) -> dict[str, float]:
        """Figures of generated captions by name, on their own scale (see ``captioner.metrics``).

        Beside BLEU-4 and CIDEr these are figures of the captions themselves, because a model that is trained
        for a score may raise it with worse sentences.

        Several processes caption whole batches in turn, so that each image is captioned once and in the same
        company as by one process; rank 0 scores all captions.

        Raises:
            ProcessLostError: another process has ended.
        """
        captions: dict[int | str, str] = {}
        special = special_ids(vocabulary)
        for start in range(world.rank * _BATCH, len(self.records), world.size * _BATCH):
            features = self.features.fetch(self.images[start : start + _BATCH], device)
            found = decode(decoder, features, options, special)
            for record, (best, *_) in zip(self.records[start : start + _BATCH], found, strict=True):
                captions[record.image_id] = detokenize(vocabulary.decode(best.words))
        parts = world.gather(captions)
        whole = {name: text for part in parts for name, text in part.items()}
        whole = {record.image_id: whole[record.image_id] for record in self.records}
        return world.share(_figures(score(whole, self.references)) if world.leads else {})


def shown(figures: Mapping[str, float]) -> str:
    """Figures for people, on the scale of papers; their names may stand behind that of a data set."""
    texts = (
        f"{name} {value:.4g}" if name.endswith(_COUNTS) else f"{name} {100 * value:.1f}"
        for name, value in figures.items()
    )
    return ", ".join(texts)


def _figures(scores: Scores) -> dict[str, float]:
    return {
        **scores.headline,
        "bad endings": scores.degeneration.bad_endings,
        "repeated bigrams": scores.degeneration.repeated_bigrams,
        "mean length": scores.diversity.mean_length,
        "distinct words": scores.diversity.vocabulary,
    }
