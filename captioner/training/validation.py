"""Judging a model in training by captions that it writes itself, never under teacher forcing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from captioner.captioner import SPECIAL_IDS
from captioner.datasets import Record
from captioner.decoding.loop import decode
from captioner.decoding.options import DecodingOptions
from captioner.metrics.evaluate import References, score
from captioner.model.decoder import Decoder
from captioner.training.features import FeatureRows
from captioner.vocabulary import Vocabulary, detokenize

_BATCH = 64


@dataclass(frozen=True)
class ValidationSet:
    """The validation photos of one data set.

    Attributes:
        label: name of the data set.
        records: photos and references.
        photos: position of each record in ``features``.
        features: encoded photos.
        references: the references, tokenised once.
    """

    label: str
    records: Sequence[Record]
    photos: Sequence[int]
    features: FeatureRows
    references: References

    def score(
        self, decoder: Decoder, vocabulary: Vocabulary, options: DecodingOptions, device: torch.device
    ) -> dict[str, float]:
        """Figures of generated captions by name, on the metrics' own scale (see ``captioner.metrics``)."""
        captions: dict[int | str, str] = {}
        for start in range(0, len(self.records), _BATCH):
            features = self.features.fetch(self.photos[start : start + _BATCH], device)
            found = decode(decoder, features, options, SPECIAL_IDS)
            for record, (best, *_) in zip(self.records[start : start + _BATCH], found, strict=True):
                captions[record.image_id] = detokenize(vocabulary.decode(best.words))
        return score(captions, self.references).figures
