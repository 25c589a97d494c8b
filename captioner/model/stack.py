"""Recurrent layers on top of each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from captioner.model.recurrence import Cell, RecurrentCell


class Stack(RecurrentCell):
    """Several layers; each reads the outputs of the one below (Graves et al. 2013, eq. 9 to 11).

    The parts of the state are those of the layers, the top layer first. With residual links the output of
    each layer from the second up is its hidden state plus what it reads, before dropout (Wu et al. 2016,
    "Google's neural machine translation system", eq. 6): the output of the stack is the sum of the hidden
    states of all layers.

    Args:
        layers: the cells, the lowest first.
        residual: whether there are residual links.
        dropout: share of a layer's outputs dropped before the layer above reads them.
    """

    def __init__(self, layers: Sequence[Cell], *, residual: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)
        self.residual = residual
        self.parts = sum(layer.parts for layer in layers)

    def step(self, inputs: Tensor, state: Tensor, hidden_limit: float | None = None) -> Tensor:
        """See :class:`~captioner.model.recurrence.RecurrentCell`."""
        states: list[Tensor] = []
        below: Tensor | None = None
        for layer, own in self._with_states(state):
            states.append(layer.step(inputs if below is None else self.dropout(below), own, hidden_limit))
            below = self._above(layer.output(states[-1]), below)
        return self._join(states)

    def forward(
        self, inputs: PackedSequence, state: Tensor, hidden_limit: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :class:`~captioner.model.recurrence.RecurrentCell`. Layer by layer, by each one's kernel."""
        states: list[Tensor] = []
        below: Tensor | None = None
        for layer, own in self._with_states(state):
            if below is not None:
                inputs = inputs._replace(data=self.dropout(below))
            outputs, last = layer(inputs, own, hidden_limit)
            states.append(last)
            below = self._above(outputs, below)
        assert below is not None  # there is a layer
        return below, self._join(states)

    def output(self, state: Tensor) -> Tensor:
        """See :class:`~captioner.model.recurrence.RecurrentCell`."""
        below: Tensor | None = None
        for layer, own in self._with_states(state):
            below = self._above(layer.output(own), below)
        assert below is not None  # there is a layer
        return below

    def _above(self, output: Tensor, below: Tensor | None) -> Tensor:
        return output + below if self.residual and below is not None else output

    def _with_states(self, state: Tensor) -> Iterator[tuple[Cell, Tensor]]:
        """The layers and their parts of the state, the lowest first."""
        layers = cast("list[Cell]", list(self.layers))
        states = torch.split(state, [layer.parts for layer in reversed(layers)], dim=1)
        yield from zip(layers, reversed(states), strict=True)

    def _join(self, states: list[Tensor]) -> Tensor:
        return torch.cat(states[::-1], dim=1)
