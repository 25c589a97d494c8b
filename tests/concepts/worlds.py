"""Class probabilities, a vocabulary that names some classes, and a decoder that is a table."""

from __future__ import annotations

import numpy as np

from captioner.decoding.filters import Floats, SpecialIds
from captioner.vocabulary import END, PAD, SPECIAL_WORDS, START, UNKNOWN, Vocabulary
from tests.decoding.fakes import History, TableModel

WORDS = ["a", "bird", "birds", "zebra", "zebras", "dog", "man"]
VOCABULARY = Vocabulary((*SPECIAL_WORDS, *WORDS))
SPECIAL = SpecialIds(start=START, end=END, banned=(PAD, START, UNKNOWN))
OWL, ZEBRA, DALMATIAN, COLLIE = 24, 340, 251, 231


def probabilities_of(*probabilities: dict[int, float]) -> Floats:
    """Class probabilities of images in which classes are seen with some probabilities, others hardly."""
    found = np.zeros((len(probabilities), 1000), np.float32)
    for image, of_image in enumerate(probabilities):
        found[image, list(of_image)] = list(of_image.values())
        found[image, 999] = 1 - sum(of_image.values())  # toilet tissue, which has no concept
    return found


class Writer(TableModel):
    """Writes the same of every image, whatever it shows: what the table says of image 0."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(len(VOCABULARY), seed)

    def initial_state(self, regions: Floats) -> History:
        return History(np.zeros((len(regions), 1, 1), np.int64))

    def logits(self, history: tuple[int, ...]) -> Floats:
        logits = super().logits(history)
        logits[END] += -1.0
        return logits
