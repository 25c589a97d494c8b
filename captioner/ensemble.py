"""Several checkpoints that write captions together: the mean of their word probabilities decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple, TypeAlias, cast

import numpy as np
from torch import Tensor

from captioner.captioner import Captioner
from captioner.checkpoint import Checkpoint, encoder_digest
from captioner.errors import OptionError
from captioner.images import Pixels, Preprocessing, Preprocessings
from captioner.model.config import NO_ENCODER
from captioner.model.decoder import Decoder
from captioner.model.ensemble import EnsembleDecoder, Packing
from captioner.vocabulary import Vocabulary

Encode: TypeAlias = "Callable[[Sequence[Pixels]], Tensor]"

_NO_VECTORS = "checkpoints with different encoders write together about pictures, not about vectors"
_SHOWN = 40  # letters of a word in a message


class Ensemble(Captioner):
    """A captioner of several checkpoints with one vocabulary; all log-probabilities are of the mean.

    Each member sees pictures as it was trained to. Members with the same encoder and preprocessing share
    what it makes of a picture. Decoding options are those of the first member. Captions have no confidence.

    Args:
        checkpoints: the members, at least one.
        device: see :class:`captioner.captioner.Captioner`.
        precision: see there.
        names: what messages call the members, such as their files.

    Raises:
        OptionError: there is no member, or the members do not go together.
    """

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        *,
        device: str = "auto",
        precision: str = "auto",
        names: Sequence[str] | None = None,
    ) -> None:
        if not checkpoints:
            raise OptionError("name at least one checkpoint")
        names = names or [f"checkpoint {number}" for number in range(1, len(checkpoints) + 1)]
        for name, checkpoint in zip(names[1:], checkpoints[1:], strict=True):
            _check_same_words(checkpoints[0].vocabulary, checkpoint.vocabulary, names[0], name)
        super().__init__(checkpoints[0], device=device, precision=precision)
        self.digest = "+".join(checkpoint.digest for checkpoint in checkpoints)
        self.calibration = None  # what was learnt of each member alone does not hold for their mean
        configs = [checkpoint.network.config for checkpoint in checkpoints]
        # Whoever asks whether regions matter, or only their mean, is told of the most demanding member.
        self.config = next((config for config in configs if config.attention != "none"), configs[0])
        eyes = [_Eye.of(checkpoint) for checkpoint in checkpoints]
        # In an order of their own, so that the order of the members changes nothing.
        self._eyes = sorted(set(eyes), key=repr)
        if len(self._eyes) > 1 and any(config.encoder == NO_ENCODER for config in configs):
            raise OptionError(f"{' and '.join(names)}: were not trained on the same kind of vectors")
        self._squares = Preprocessings(tuple(dict.fromkeys(eye.preprocessing for eye in self._eyes)))
        self.preprocessing = self._squares
        firsts = [checkpoints[eyes.index(eye)] for eye in self._eyes]
        self._encoders = [
            self._encoder_of(checkpoint, checkpoints[0], device, precision) for checkpoint in firsts
        ]
        if len(self._eyes) > 1:  # the classifier of the first would look at the regions of all
            self.tagger, self.options = None, replace(self.options, tag_threshold=0.0)
        self._packing = self._measured()
        members = [checkpoint.network.decoder.eval().to(self.device) for checkpoint in checkpoints]
        decoder = EnsembleDecoder(members, [self._eyes.index(eye) for eye in eyes], self._packing)
        self.decoder = cast(Decoder, decoder)  # which has the methods that captions and scores take

    def _encoder_of(self, checkpoint: Checkpoint, first: Checkpoint, device: str, precision: str) -> Encode:
        if checkpoint is first:  # has been prepared already
            return super().encode
        return Captioner(checkpoint, device=device, precision=precision).encode

    def _measured(self) -> Packing:
        """How the regions of the encoders lie in one tensor."""
        if len(self._eyes) == 1:
            return Packing([(0, self.config.channels)])
        blank = self._looks([np.zeros(self._squares.shape, np.uint8)])
        return Packing([(seen.shape[1], seen.shape[2]) for seen in blank])

    def check_takes_vectors(self) -> None:
        """Accept to be given ready-made vectors.

        Raises:
            OptionError: the members have different encoders, each of which makes vectors of its own.
        """
        if len(self._eyes) > 1:
            raise OptionError(_NO_VECTORS)

    def encode(self, pixels: Sequence[Pixels]) -> Tensor:
        """Region features of preprocessed pictures, those of all encoders in one tensor.

        Raises:
            CheckpointError: as of one checkpoint.
        """
        return self._packing.pack(self._looks(pixels))

    def _looks(self, pixels: Sequence[Pixels]) -> list[Tensor]:
        """What each encoder makes of its own squares of the pictures."""
        squares = [self._squares.squares(each) for each in pixels]
        places = [self._squares.members.index(eye.preprocessing) for eye in self._eyes]
        return [
            encode([of_picture[place] for of_picture in squares])
            for encode, place in zip(self._encoders, places, strict=True)
        ]

    def _regions(self, vectors: Tensor) -> Tensor:
        if len(self._eyes) == 1:
            return super()._regions(vectors)
        if vectors.ndim != 3 or vectors.shape[1:] != (1, self._packing.width):
            raise OptionError(_NO_VECTORS)
        return vectors.to(self.device)  # from encode(), which has checked the values


class _Eye(NamedTuple):
    """What tells how a member sees: members with equal ones make the same of a picture."""

    preprocessing: Preprocessing
    encoder: str
    channels: int

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> _Eye:
        """The eye of a checkpoint."""
        network = checkpoint.network
        return cls(checkpoint.preprocessing, encoder_digest(network.encoder), network.config.channels)


def _check_same_words(first: Vocabulary, other: Vocabulary, first_name: str, name: str) -> None:
    """Accept two vocabularies with the same words in the same order.

    Raises:
        OptionError: they differ; names the first difference.
    """
    for number, pair in enumerate(zip_longest(first.words, other.words)):
        if pair[0] != pair[1]:
            words = ["nothing" if word is None else repr(word[:_SHOWN]) for word in pair]
            raise OptionError(
                f"{first_name} and {name} cannot be averaged: word {number} is {words[0]} in the one and "
                f"{words[1]} in the other; they must have the same words in the same order"
            )
