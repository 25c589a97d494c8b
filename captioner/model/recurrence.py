"""What a recurrent cell is, whether one layer or many.

The state of a cell is one tensor ``(batch, parts, hidden)``: an LSTM has two parts (hidden state and
memory), other cells one, a stack those of all of its layers. Nothing outside needs to know which cell it
holds, and a beam is reordered by indexing one tensor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class RecurrentCell(nn.Module, ABC):
    """What every cell offers: one step, and whole sequences at once.

    With a ``hidden_limit`` every element of the gradient of the loss by the hidden state, dL/dh_t, is brought
    into ``[-hidden_limit, hidden_limit]`` at each time step, before it flows on to the step before.

    Attributes:
        parts: number of tensors of length ``hidden`` that make up the state.
    """

    parts: int

    @abstractmethod
    def step(self, inputs: Tensor, state: Tensor, hidden_limit: float | None = None) -> Tensor:
        """One time step: ``(batch, inputs)``, ``(batch, parts, hidden)`` -> ``(batch, parts, hidden)``."""

    @abstractmethod
    def forward(
        self, inputs: PackedSequence, state: Tensor, hidden_limit: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """All outputs for sequences that are known beforehand.

        Args:
            inputs: packed ``(batch, time, inputs)``, longest sequence first.
            state: ``(batch, parts, hidden)``.
            hidden_limit: see the class.

        Returns:
            Outputs ``(words, hidden)``, one row for each real position, in packed order (time-major), and
            the state ``(batch, parts, hidden)`` after the last position of each sequence.
        """

    def output(self, state: Tensor) -> Tensor:
        """What a state shows to the layers above: ``(batch, parts, hidden)`` -> ``(batch, hidden)``."""
        return state[:, 0]


class Cell(RecurrentCell):
    """One layer, written as the equation of one step. Part 0 of its state is the hidden state ``h_t``."""

    @property
    @abstractmethod
    def recurrent_weight(self) -> Tensor:
        """What the hidden state is multiplied by: ``(gates * hidden, hidden)``, one gate below the other."""

    @abstractmethod
    def advance(self, projected: Tensor, state: Tensor) -> Tensor:
        """The equation: projected inputs and state ``(batch, parts, hidden)`` -> the next state."""

    def project(self, inputs: Tensor) -> Tensor:
        """The part of the equation without the state: ``(rows, inputs)`` -> ``(rows, any)``.

        Computed for all time steps in one multiplication; what is left here costs no step.
        """
        return inputs

    def step(self, inputs: Tensor, state: Tensor, hidden_limit: float | None = None) -> Tensor:
        """See :class:`RecurrentCell`."""
        return _limited(self.advance(self.project(inputs), state), hidden_limit)

    def forward(
        self, inputs: PackedSequence, state: Tensor, hidden_limit: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :class:`RecurrentCell`. Step by step; cells with a fused kernel override it."""
        outputs, ended = [], []
        for projected in torch.split(self.project(inputs.data), inputs.batch_sizes.tolist()):
            rows = len(projected)
            if rows < len(state):  # the longest come first, so the sequences that go on are the first rows
                ended.append(state[rows:])
                state = state[:rows]
            state = _limited(self.advance(projected, state), hidden_limit)
            outputs.append(self.output(state))
        return torch.cat(outputs), torch.cat([state, *reversed(ended)])


def _limited(state: Tensor, hidden_limit: float | None) -> Tensor:
    """A state through which no element of dL/dh_t flows back that is larger than the limit.

    The hook sees the gradient from everything that reads ``h_t``: output, layer above and later steps.
    """
    if hidden_limit is None or not state.requires_grad:
        return state

    def limit(gradient: Tensor) -> Tensor:
        hidden = gradient[:, :1].clamp(-hidden_limit, hidden_limit)
        return torch.cat((hidden, gradient[:, 1:]), dim=1)

    state.register_hook(limit)  # type: ignore[no-untyped-call]
    return state
