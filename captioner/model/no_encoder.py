"""What stands in a network that was trained on ready-made vectors, where others have their encoder."""

from __future__ import annotations

from torch import Tensor, nn

from captioner.errors import EncoderError
from captioner.images import Preprocessing
from captioner.model.config import NO_ENCODER
from captioner.model.encoder import Encoder

NO_PREPROCESSING = Preprocessing(1, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Holds the place of a preprocessing in such a model."""

CANNOT_SEE = (
    "the checkpoint was trained on vectors and does not know which encoder made them: it captions vectors "
    "(a .npy file), and pictures only when `encoder` NAME says what made the vectors"
)


class NoEncoder(Encoder):
    """Says that it cannot encode pictures. It has no weights."""

    def __init__(self) -> None:
        super().__init__(NO_ENCODER, nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        """Never gives features.

        Raises:
            EncoderError: always.
        """
        raise EncoderError(CANNOT_SEE)
