"""The recurrent family. One class per cell; the decoder picks one by name.

Every cell reads an input ``x_t`` and its own last state and makes the next one. ``W``, ``U`` are matrices,
``b`` is a vector, products without a sign are matrix products, ``*`` works on each element.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class RecurrentCell(nn.Module, ABC):
    """What every cell offers: one step, and whole sequences at once.

    With a ``limit`` every element of the gradient of the loss by the hidden state, dL/dh_t, is brought
    into ``[-limit, limit]`` at each time step, before it flows on to the step before.

    Attributes:
        parts: number of tensors of length ``hidden`` that make up the state.
    """

    parts: int

    @abstractmethod
    def step(self, inputs: Tensor, state: Tensor, limit: float | None = None) -> Tensor:
        """Take one time step: ``(batch, inputs)``, ``(batch, parts, hidden)`` -> ``(batch, parts, hidden)``."""

    @abstractmethod
    def forward(self, inputs: PackedSequence, state: Tensor, limit: float | None = None) -> tuple[Tensor, Tensor]:
        """Compute all outputs of sequences that are known in advance.

        Args:
            inputs: packed ``(batch, time, inputs)``, longest sequence first.
            state: ``(batch, parts, hidden)``.
            limit: see the class.

        Returns:
            Outputs ``(words, hidden)``, one row for each real position, in packed order (time-major), and
            the state ``(batch, parts, hidden)`` after the last position of each sequence.
        """

    def output(self, state: Tensor) -> Tensor:
        """Give what a state shows to the layers above: ``(batch, parts, hidden)`` -> ``(batch, hidden)``."""
        return state[:, 0]


class Cell(RecurrentCell):
    """One layer, written as the equation of one step. Part 0 of its state is the hidden state ``h_t``."""

    @property
    @abstractmethod
    def recurrent_weight(self) -> Tensor:
        """What the hidden state is multiplied by: ``(gates * hidden, hidden)``, one gate below the other."""

    @abstractmethod
    def advance(self, projected: Tensor, state: Tensor) -> Tensor:
        """Apply the equation: projected inputs and state ``(batch, parts, hidden)`` -> the next state."""

    def project(self, inputs: Tensor) -> Tensor:
        """Compute the part of the equation without the state: ``(rows, inputs)`` -> ``(rows, any)``.

        Computed for all time steps in one multiplication; what is left here costs no step.
        """
        return inputs

    def step(self, inputs: Tensor, state: Tensor, limit: float | None = None) -> Tensor:
        """See :class:`RecurrentCell`."""
        return _limited(self.advance(self.project(inputs), state), limit)

    def forward(self, inputs: PackedSequence, state: Tensor, limit: float | None = None) -> tuple[Tensor, Tensor]:
        """See :class:`RecurrentCell`. Step by step; cells with a fused kernel override it."""
        outputs, ended = [], []
        for projected in torch.split(self.project(inputs.data), inputs.batch_sizes.tolist()):
            rows = len(projected)
            if rows < len(state):  # the longest come first, so the sequences that go on are the first rows
                ended.append(state[rows:])
                state = state[:rows]
            state = _limited(self.advance(projected, state), limit)
            outputs.append(self.output(state))
        return torch.cat(outputs), torch.cat([state, *reversed(ended)])


def _limited(state: Tensor, limit: float | None) -> Tensor:
    """A state through which no element of dL/dh_t flows back that is larger than the limit.

    The hook sees the gradient from everything that reads ``h_t``: output, layer above and later steps.
    """
    if limit is None or not state.requires_grad:
        return state

    def clamped(gradient: Tensor) -> Tensor:
        hidden = gradient[:, :1].clamp(-limit, limit)
        return torch.cat((hidden, gradient[:, 1:]), dim=1)

    state.register_hook(clamped)  # type: ignore[no-untyped-call]
    return state


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

    def step(self, inputs: Tensor, state: Tensor, limit: float | None = None) -> Tensor:
        """See :class:`RecurrentCell`."""
        states: list[Tensor] = []
        below: Tensor | None = None
        for layer, own in self._with_states(state):
            states.append(layer.step(inputs if below is None else self.dropout(below), own, limit))
            below = self._above(layer.output(states[-1]), below)
        return torch.cat(states[::-1], dim=1)

    def forward(self, inputs: PackedSequence, state: Tensor, limit: float | None = None) -> tuple[Tensor, Tensor]:
        """See :class:`RecurrentCell`. Layer by layer, by each one's kernel."""
        states: list[Tensor] = []
        below: Tensor | None = None
        for layer, own in self._with_states(state):
            if below is not None:
                inputs = inputs._replace(data=self.dropout(below))
            outputs, last = layer(inputs, own, limit)
            states.append(last)
            below = self._above(outputs, below)
        assert below is not None  # there is a layer
        return below, torch.cat(states[::-1], dim=1)

    def output(self, state: Tensor) -> Tensor:
        """See :class:`RecurrentCell`."""
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
        return zip(layers, reversed(states), strict=True)


class FusedCell(Cell):
    """A cell for which torch has a kernel that runs a whole sequence.

    Attributes:
        core: torch's layer, which holds the weights.
        runs_whole: whether the kernel computes what the cell does.
    """

    core: nn.RNNBase
    runs_whole = True

    @property
    def recurrent_weight(self) -> Tensor:
        """See :class:`Cell`."""
        return self.core.all_weights[0][1]

    def forward(self, inputs: PackedSequence, state: Tensor, limit: float | None = None) -> tuple[Tensor, Tensor]:
        """See :class:`RecurrentCell`.

        The kernel shows no gradient between two steps, so a limit on it is set step by step.
        """
        if limit is not None or not self.runs_whole:
            return super().forward(inputs, state, limit)
        first = state.transpose(0, 1).contiguous()
        outputs, last = self.core(inputs, first.chunk(2) if self.parts == 2 else first)
        last = torch.cat(last) if self.parts == 2 else last
        return outputs.data, last.transpose(0, 1)


class RNN(FusedCell):
    """The vanilla cell (Elman 1990): ``h_t = s(W h_{t-1} + U x_t + b)``, ``s`` being tanh or the sigmoid."""

    parts = 1

    def __init__(self, input_size: int, hidden_size: int, nonlinearity: str = "tanh") -> None:
        super().__init__()
        self.core = nn.RNN(input_size, hidden_size)
        self.runs_whole = nonlinearity == "tanh"
        self.squash: Callable[[Tensor], Tensor] = torch.sigmoid if nonlinearity == "sigmoid" else torch.tanh

    def project(self, inputs: Tensor) -> Tensor:
        """``U x + b``."""
        weight, _, bias, _ = self.core.all_weights[0]
        return nn.functional.linear(inputs, weight, bias)

    def advance(self, projected: Tensor, state: Tensor) -> Tensor:
        """See :class:`Cell`."""
        _, weight, _, bias = self.core.all_weights[0]
        return self.squash(projected + nn.functional.linear(state[:, 0], weight, bias)).unsqueeze(1)


class AddingCell(Cell):
    """A cell that adds to its state; all its gates come out of one multiplication by ``W`` and one by ``U``."""

    parts = 1
    gates: int

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.of_input = nn.Linear(input_size, self.gates * hidden_size)
        self.of_state = nn.Linear(hidden_size, self.gates * hidden_size, bias=False)
        # With W = 0 the cell starts as a sum of its inputs, and every gradient comes back as it was. With
        # torch's usual random W powers of 1 + W explode: after 5 epochs on Flickr8k CIDEr 29.6, not 38.5
        # (the gated cell of two layers: 33.8, not 36.6).
        nn.init.zeros_(self.of_state.weight)

    @property
    def recurrent_weight(self) -> Tensor:
        """See :class:`Cell`."""
        return self.of_state.weight

    def project(self, inputs: Tensor) -> Tensor:
        """``U x + b`` of all gates."""
        projected: Tensor = self.of_input(inputs)
        return projected


class ResidualRNN(AddingCell):
    """Adds to its state instead of replacing it: ``h_t = h_{t-1} + tanh(W h_{t-1} + U x_t + b)``.

    The gradient has a way back that no matrix stands in: ``dh_t/dh_{t-1} = 1 + diag(1 - tanh^2) W``, the
    idea of He et al. 2016 ("Deep residual learning", eq. 1) over time instead of depth.
    """

    gates = 1

    def advance(self, projected: Tensor, state: Tensor) -> Tensor:
        """See :class:`Cell`."""
        hidden = state[:, 0]
        return (hidden + torch.tanh(projected + self.of_state(hidden))).unsqueeze(1)


class GatedRNN(AddingCell):
    """Forgets a part of its state before it adds: ``h_t = forget * h_{t-1} + update``.

    ``forget = sigmoid(W_f h_{t-1} + U_f x_t + b_f)``, ``update = tanh(W_u h_{t-1} + U_u x_t + b_u)``: a
    residual cell that can let go, and half of the way to the LSTM.
    """

    gates = 2

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        nn.init.zeros_(self.of_input.bias)
        nn.init.ones_(self.of_input.bias[:hidden_size])  # the gate starts open, as that of the LSTM

    def advance(self, projected: Tensor, state: Tensor) -> Tensor:
        """See :class:`Cell`."""
        hidden = state[:, 0]
        forget, update = (projected + self.of_state(hidden)).chunk(2, dim=-1)
        return (torch.sigmoid(forget) * hidden + torch.tanh(update)).unsqueeze(1)


class LSTM(FusedCell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000).

    ``i, f, o = sigmoid(W h_{t-1} + U x_t + b)``, each with its own weights, ``g = tanh(W_g h_{t-1} + U_g x_t
    + b_g)``, ``c_t = f * c_{t-1} + i * g``, ``h_t = o * tanh(c_t)``. The memory ``c`` is the second part of
    the state.
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

    def advance(self, projected: Tensor, state: Tensor) -> Tensor:
        """See :class:`Cell`."""
        hidden, memory = torch.lstm_cell(projected, (state[:, 0], state[:, 1]), *self.core.all_weights[0])
        return torch.stack((hidden, memory), dim=1)


class GRU(FusedCell):
    """Gated recurrent unit (Cho et al. 2014, eq. 5 to 8), in torch's form.

    The textbook has ``z, r = sigmoid(W [h_{t-1}, x_t])``, ``h' = tanh(W_h [r * h_{t-1}, x_t])``,
    ``h_t = (1 - z) * h_{t-1} + z * h'`` (Chung et al. 2014, section 3.2). torch has the same ``z, r``, but
    ``n = tanh(U_n x_t + b_n + r * (W_n h_{t-1} + c_n))``, ``h_t = (1 - z) * n + z * h_{t-1}``.

    Two things differ. The reset gate ``r`` is applied *after* the recurrent matrix instead of before it, so
    that the matrices of both gates and of the candidate work in one multiplication; this is another cell,
    though neither is known to be better. And ``z`` keeps (as in Cho et al.) where the textbook's ``z``
    renews, which is a matter of names: ``1 - sigmoid(a) = sigmoid(-a)``.
    """

    parts = 1

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.core = nn.GRU(input_size, hidden_size)

    def advance(self, projected: Tensor, state: Tensor) -> Tensor:
        """See :class:`Cell`."""
        return torch.gru_cell(projected, state[:, 0], *self.core.all_weights[0]).unsqueeze(1)


_CELLS: dict[str, Callable[[int, int], Cell]] = {
    "residual_rnn": ResidualRNN,
    "gated_rnn": GatedRNN,
    "lstm": LSTM,
    "gru": GRU,
}


def build_cell(
    name: str,
    input_size: int,
    hidden_size: int,
    *,
    layers: int = 1,
    nonlinearity: str = "tanh",
    residual_layers: bool = False,
    dropout: float = 0.0,
) -> RecurrentCell:
    """Build one cell, or several on top of each other.

    Args:
        name: one of :data:`captioner.model.config.CELLS`.
        input_size: length of one input.
        hidden_size: length of each part of the state.
        layers: number of cells; each reads the outputs of the one below.
        nonlinearity: of the cell ``rnn``, one of :data:`captioner.model.config.NONLINEARITIES`.
        residual_layers: whether each layer from the second up adds its output to what it reads.
        dropout: share of activations dropped between layers.
    """

    def layer(size: int) -> Cell:
        return RNN(size, hidden_size, nonlinearity) if name == "rnn" else _CELLS[name](size, hidden_size)

    if layers == 1:
        return layer(input_size)
    sizes = [input_size] + [hidden_size] * (layers - 1)
    return Stack([layer(size) for size in sizes], residual=residual_layers, dropout=dropout)
