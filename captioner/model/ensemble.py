"""Several networks as one: they share encoders, and the mean of their probabilities chooses each word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioner.images import Preprocessing, Preprocessings
from captioner.model.decoder import Decoder, OnAttention, State


class EncoderKey(NamedTuple):
    """What tells encoders apart: members with equal keys make the same regions of an image."""

    preprocessing: Preprocessing
    digest: str
    channels: int


class Packing:
    """Arrays of several shapes as one, so that only this module knows that there are several.

    Those of a single shape stay as they are. Else each image has one long row.

    Args:
        shapes: of the array that each part has for an image.

    Attributes:
        width: length of an image's row.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self.shapes = tuple(shapes)
        self._sizes = [math.prod(shape) for shape in shapes]
        self.width = sum(self._sizes)

    def pack(self, parts: Sequence[Tensor]) -> Tensor:
        """From ``(images, regions, channels)`` of each encoder to ``(images, 1, width)``."""
        if len(parts) == 1:
            return parts[0]
        return torch.cat([part.flatten(1) for part in parts], dim=1).unsqueeze(1)

    def unpack(self, packed: Tensor) -> list[Tensor]:
        """From ``(images, ..., width)`` to the parts, each ``(images, *shape)``."""
        if len(self.shapes) == 1:
            return [packed]
        parts = torch.split(packed.flatten(1), self._sizes, dim=1)
        return [part.reshape(len(part), *shape) for part, shape in zip(parts, self.shapes, strict=True)]


class PackedEncoder(nn.Module):
    """Encoders as one, from the pixels of images to their regions.

    Args:
        encoders: at least one.
        keys: theirs; each encoder sees what its own preprocessing makes of an image.
        packing: of their regions.

    Attributes:
        preprocessing: makes the pixels.
        packing: as given.
    """

    def __init__(self, encoders: Sequence[nn.Module], keys: Sequence[EncoderKey], packing: Packing) -> None:
        super().__init__()
        self.encoders, self.packing = nn.ModuleList(encoders), packing
        self._seen_through = [key.preprocessing for key in keys]
        self._members = tuple(dict.fromkeys(self._seen_through))
        self._inputs = Packing([member.shape for member in self._members])
        self.preprocessing: Preprocessing | Preprocessings = self._members[0]
        if len(self._members) > 1:
            self.preprocessing = Preprocessings(self._members)

    def forward(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        """Encode what ``preprocessing`` has made, computing in ``dtype``.

        Shapes: uint8 ``(images, *preprocessing.shape)`` -> float32 ``(images, regions, channels)`` of a
        single encoder, ``(images, 1, packing.width)`` of several.
        """
        parts = dict(zip(self._members, self._inputs.unpack(pixels), strict=True))
        regions = []
        for encoder, preprocessing in zip(self.encoders, self._seen_through, strict=True):
            images = preprocessing.normalise(parts[preprocessing])
            regions.append(encoder(images.to(dtype, memory_format=torch.channels_last)).float())
        return self.packing.pack(regions)


@dataclass(frozen=True)
class EnsembleState:
    """The state of each decoder."""

    states: tuple[State, ...]

    def expand(self, width: int) -> EnsembleState:
        """Repeat every row ``width`` times."""
        return EnsembleState(tuple(state.expand(width) for state in self.states))

    def reorder(self, rows: Tensor) -> EnsembleState:
        """Exchange rows of the same image."""
        return EnsembleState(tuple(state.reorder(rows) for state in self.states))

    def select(self, rows: Tensor) -> EnsembleState:
        """Some of the rows."""
        return EnsembleState(tuple(state.select(rows) for state in self.states))


class EnsembleDecoder(nn.Module):
    """Decoders of one vocabulary as one, with the methods of :class:`captioner.model.decoder.Decoder`.

    The probability of a word is the mean of the members' probabilities, and what it calls logits are the
    logarithms of these; of a single member they are its own logits. It is not trained.

    Args:
        members: at least one.
        encoders: for each member the number of the encoder whose regions it reads.
        packing: of the encoders' regions.
    """

    def __init__(self, members: Sequence[Decoder], encoders: Sequence[int], packing: Packing) -> None:
        super().__init__()
        self.members: Sequence[Decoder] = nn.ModuleList(members)  # type: ignore[assignment]
        self._encoders, self._packing = tuple(encoders), packing
        self._sizes = [member.hidden_size for member in members]

    @property
    def attends(self) -> bool:
        """Whether it can be shown where it looks; several members may look at grids of their own."""
        return len(self.members) == 1 and self.members[0].attention is not None

    def initial_state(self, regions: Tensor) -> EnsembleState:
        """First states from packed regions."""
        parts = self._packing.unpack(regions)
        pairs = zip(self.members, self._encoders, strict=True)
        return EnsembleState(tuple(member.initial_state(parts[encoder]) for member, encoder in pairs))

    def step(self, words: Tensor, state: EnsembleState) -> tuple[Tensor, EnsembleState]:
        """One word further: ``(rows,)`` previous words -> ``(rows, vocab)`` and the states after them."""
        pairs = zip(self.members, state.states, strict=True)
        logits, states = zip(*(member.step(words, own) for member, own in pairs), strict=True)
        return log_mean(logits), EnsembleState(states)

    def teacher_force(
        self, words: Tensor, lengths: Tensor, state: EnsembleState, on_attention: OnAttention | None = None
    ) -> Tensor:
        """Outputs of all members for known captions, side by side, in packed order.

        Where it looks is told by ``on_attention`` if it ``attends``.
        """
        look = on_attention if self.attends else None
        pairs = zip(self.members, state.states, strict=True)
        outputs = [member.teacher_force(words, lengths, own, on_attention=look) for member, own in pairs]
        return torch.cat(outputs, dim=-1)

    def logits(self, outputs: Tensor) -> Tensor:
        """Scores of all words from :meth:`teacher_force`: ``(..., all hidden)`` -> ``(..., vocab)``."""
        parts = torch.split(outputs, self._sizes, dim=-1)
        return log_mean([m.logits(part) for m, part in zip(self.members, parts, strict=True)])


def log_mean(logits: Sequence[Tensor]) -> Tensor:
    """Logarithm of the mean of ``softmax(logits)``: each ``(..., vocab)`` -> ``(..., vocab)``.

    A single one is returned as it is; its softmax is the same.
    """
    if len(logits) == 1:
        return logits[0]
    log_probs = torch.stack([each.float().log_softmax(dim=-1) for each in logits])
    return log_probs.logsumexp(dim=0) - math.log(len(logits))
