"""Recurrent cells. One class per cell; the decoder picks one by name.

The state of a cell is one tensor ``(batch, parts, hidden)``: an LSTM has two parts (hidden state and
memory), other cells one. Part 0 is always the output, so nothing outside this file needs to know which
cell it holds, and a beam is reordered by indexing one tensor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class RecurrentCell(nn.Module, ABC):
    """What every cell offers: one step, and whole sequences at once.

    Attributes:
        parts: number of tensors of length ``hidden`` that make up the state.
    """

    parts: ClassVar[int]

    @abstractmethod
    def step(self, inputs: Tensor, state: Tensor) -> Tensor:
        """One time step: ``(batch, inputs)``, ``(batch, parts, hidden)`` -> ``(batch, parts, hidden)``."""

    @abstractmethod
    def forward(self, inputs: PackedSequence, state: Tensor) -> Tensor:
        """All outputs for sequences that are known beforehand, by torch's fused kernel.

        Args:
            inputs: packed ``(batch, time, inputs)``, longest sequence first.
            state: ``(batch, parts, hidden)``.

        Returns:
            ``(words, hidden)``: one row for each real position, in packed order (time-major).
        """


class LSTM(RecurrentCell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000).

    ``i, f, o = sigmoid(...)``, ``g = tanh(...)``, ``c_t = f c_{t-1} + i g``, ``h_t = o tanh(c_t)``.
    """

    parts = 2

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.core = nn.LSTM(input_size, hidden_size)
        # A forget gate that starts open lets gradients through (Jozefowicz et al. 2015). torch adds
        # two biases, so one of them is enough.
        _, _, input_bias, hidden_bias = self.core.all_weights[0]
        with torch.no_grad():
            input_bias[hidden_size : 2 * hidden_size] = 1.0
            hidden_bias.zero_()

    def step(self, inputs: Tensor, state: Tensor) -> Tensor:
        """See :class:`RecurrentCell`."""
        hidden, memory = torch.lstm_cell(inputs, (state[:, 0], state[:, 1]), *self.core.all_weights[0])
        return torch.stack((hidden, memory), dim=1)

    def forward(self, inputs: PackedSequence, state: Tensor) -> Tensor:
        """See :class:`RecurrentCell`."""
        hidden, memory = state.transpose(0, 1).contiguous().chunk(2)
        outputs: PackedSequence = self.core(inputs, (hidden, memory))[0]
        return outputs.data


class GRU(RecurrentCell):
    """Gated recurrent unit (Cho et al. 2014), in torch's form.

    ``r, z = sigmoid(...)``, ``n = tanh(W x + b + r * (U h + c))``, ``h_t = (1 - z) n + z h_{t-1}``.
    """

    parts = 1

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.core = nn.GRU(input_size, hidden_size)

    def step(self, inputs: Tensor, state: Tensor) -> Tensor:
        """See :class:`RecurrentCell`."""
        hidden = torch.gru_cell(inputs, state[:, 0], *self.core.all_weights[0])
        return hidden.unsqueeze(1)

    def forward(self, inputs: PackedSequence, state: Tensor) -> Tensor:
        """See :class:`RecurrentCell`."""
        outputs: PackedSequence = self.core(inputs, state.transpose(0, 1).contiguous())[0]
        return outputs.data


_CELLS: dict[str, type[LSTM] | type[GRU]] = {"lstm": LSTM, "gru": GRU}


def build_cell(name: str, input_size: int, hidden_size: int) -> RecurrentCell:
    """The cell called ``name``, one of :data:`captioner.model.config.CELLS`."""
    return _CELLS[name](input_size, hidden_size)
