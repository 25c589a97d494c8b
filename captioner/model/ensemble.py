"""Several decoders that write one caption: the mean of their probabilities chooses each word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captioner.model.decoder import Decoder, State


class Packing:
    """The regions of several encoders in one tensor, so that nobody else must know that there are several.

    Those of one encoder stay as they are. Else each picture has one long vector.

    Args:
        shapes: ``(regions, channels)`` of each encoder.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        self.shapes = tuple(shapes)
        self._sizes = [regions * channels for regions, channels in shapes]

    @property
    def width(self) -> int:
        """Length of a picture's vector."""
        return sum(self._sizes)

    def pack(self, parts: Sequence[Tensor]) -> Tensor:
        """From ``(pictures, regions, channels)`` of each encoder to ``(pictures, 1, width)``."""
        if len(parts) == 1:
            return parts[0]
        return torch.cat([part.flatten(1) for part in parts], dim=1).unsqueeze(1)

    def unpack(self, regions: Tensor) -> list[Tensor]:
        """Inverse of :meth:`pack`."""
        if len(self.shapes) == 1:
            return [regions]
        parts = torch.split(regions.flatten(1), self._sizes, dim=1)
        return [part.reshape(len(part), *shape) for part, shape in zip(parts, self.shapes, strict=True)]


@dataclass(frozen=True)
class EnsembleState:
    """The state of each decoder."""

    states: tuple[State, ...]

    def expand(self, width: int) -> EnsembleState:
        """Repeat every row ``width`` times."""
        return EnsembleState(tuple(state.expand(width) for state in self.states))

    def reorder(self, rows: Tensor) -> EnsembleState:
        """Exchange rows of the same picture."""
        return EnsembleState(tuple(state.reorder(rows) for state in self.states))


class EnsembleDecoder(nn.Module):
    """Decoders of one vocabulary as one, with the methods of :class:`captioner.model.decoder.Decoder`.

    The probability of a word is the mean of the members' probabilities, and what it calls logits are the
    logarithms of these. It is not trained.

    Args:
        members: at least one.
        eyes: for each member the encoder, by its number, whose regions it reads.
        packing: of the encoders' regions.
    """

    def __init__(self, members: Sequence[Decoder], eyes: Sequence[int], packing: Packing) -> None:
        super().__init__()
        self.members: Sequence[Decoder] = nn.ModuleList(members)  # type: ignore[assignment]
        self._eyes, self._packing = tuple(eyes), packing
        self._sizes = [member.hidden_size for member in members]
        self.attention: None = None  # members may look at grids of their own, so there is no map of all

    def initial_state(self, regions: Tensor) -> EnsembleState:
        """First states from packed regions."""
        seen = self._packing.unpack(regions)
        return EnsembleState(
            tuple(
                member.initial_state(seen[eye]) for member, eye in zip(self.members, self._eyes, strict=True)
            )
        )

    def step(self, words: Tensor, state: EnsembleState) -> tuple[Tensor, EnsembleState]:
        """One word further: ``(rows,)`` previous words -> ``(rows, vocab)`` and the states after them."""
        steps = [
            member.step(words, of_member)
            for member, of_member in zip(self.members, state.states, strict=True)
        ]
        logits, states = zip(*steps, strict=True)
        return log_mean(logits), EnsembleState(states)

    def unroll(self, words: Tensor, lengths: Tensor, state: EnsembleState) -> Tensor:
        """Outputs of all members for known captions, side by side, in packed order."""
        outputs = [
            member.unroll(words, lengths, of_member)
            for member, of_member in zip(self.members, state.states, strict=True)
        ]
        return torch.cat(outputs, dim=-1)

    def logits(self, outputs: Tensor) -> Tensor:
        """Scores of all words from what :meth:`unroll` gave: ``(..., all hidden)`` -> ``(..., vocab)``."""
        parts = torch.split(outputs, self._sizes, dim=-1)
        return log_mean([m.logits(part) for m, part in zip(self.members, parts, strict=True)])


def log_mean(logits: Sequence[Tensor]) -> Tensor:
    """Logarithm of the mean of ``softmax(logits)``: each ``(..., vocab)`` -> ``(..., vocab)``."""
    log_probs = torch.stack([each.float().log_softmax(dim=-1) for each in logits])
    return log_probs.logsumexp(dim=0) - math.log(len(logits))
