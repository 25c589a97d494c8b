"""Images that are one vector of logits, a classifier that passes them on, and a decoder that is a table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captioner.decoding.filters import SpecialIds
from captioner.model.encoder import CLASSES, classifier_of
from captioner.vocabulary import END, PAD, SPECIAL_WORDS, START, UNKNOWN, Vocabulary
from tests.decoding.fakes import History, TableModel

WORDS = ["a", "bird", "birds", "zebra", "zebras", "dog", "man"]
VOCABULARY = Vocabulary((*SPECIAL_WORDS, *WORDS))
SPECIAL = SpecialIds(start=START, end=END, banned=(PAD, START, UNKNOWN))
OWL, ZEBRA, DALMATIAN, COLLIE = 24, 340, 251, 231


def passing_on() -> nn.Linear:
    """A classifier whose logits are the region itself."""
    return classifier_of(torch.eye(CLASSES), torch.zeros(CLASSES))


def images_of(*probabilities: dict[int, float]) -> Tensor:
    """Region features of images in which classes are seen with some probabilities, others hardly.

    The number of the image is the logit of class 0, which no concept here holds.
    """
    regions = torch.full((len(probabilities), 1, CLASSES), -50.0)
    for image, of_image in enumerate(probabilities):
        for number, probability in of_image.items():
            regions[image, 0, number] = torch.tensor(probability).log()
        rest = torch.tensor(1 - sum(of_image.values())).log()
        regions[image, 0, 999] = rest  # toilet tissue, which has no concept
    return regions


class Writer(TableModel):
    """Writes the same of every image, whatever it shows: what the table says of image 0."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(len(VOCABULARY), seed)

    def initial_state(self, regions: Tensor) -> History:
        return History(torch.zeros(len(regions), 1, dtype=torch.long))

    def logits(self, history: tuple[int, ...]) -> Tensor:
        logits = super().logits(history)
        logits[END] += -1.0
        return logits
