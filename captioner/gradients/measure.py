"""The norm of the gradient of one word's loss by the states before it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from captioner.errors import OptionError
from captioner.model.decoder import Decoder

_NUMBERS = 1 << 22  # of the states that one graph holds; about 12 times as many with what lies between


@dataclass(frozen=True)
class Curve:
    """How the gradient of one model fades with the time it has to flow back.

    Attributes:
        model: what to call it.
        trained: whether it has been trained.
        states: mean norm of dL_T/ds_t by the whole state of all layers, for the lags T - t = 0, 1, ...
        hidden: the same by the hidden state h_t (of the top layer) alone.
    """

    model: str
    trained: bool
    states: tuple[float, ...]
    hidden: tuple[float, ...]

    @property
    def relative(self) -> tuple[float, ...]:
        """``states`` as shares of the first."""
        return tuple(value / self.states[0] for value in self.states)


def measure(model: str, decoder: Decoder, regions: Tensor, words: Tensor, *, trained: bool) -> Curve:
    """Measure one model.

    ``L_T`` is the loss of the last word alone, given the image and the true words before it, and the
    derivative is the total one, along all ways from a state to that word. For cells with a memory ``c_t``
    beside ``h_t`` the state is both together: that is what a step hands to the next, and what the product
    of Jacobians in the theory of vanishing gradients is about. In float64, because gradients fall below
    what float32 can hold.

    Args:
        model: what to call it.
        decoder: the model.
        regions: ``(sequences, regions, channels)``; the first state comes from these.
        words: ``(sequences, T + 1)`` ids; all but the last are read, and the last is the one judged.
        trained: noted in the result.

    Raises:
        OptionError: gradients are too large to be numbers.
    """
    decoder = decoder.double().eval().requires_grad_(False)
    regions = regions.double()
    hidden_numbers = decoder.cell.parts * decoder.hidden_size * words.shape[1]
    rows = max(1, _NUMBERS // hidden_numbers)
    norms = [
        _norms(decoder, regions[first : first + rows], words[first : first + rows])
        for first in range(0, len(words), rows)
    ]
    means = torch.cat(norms, dim=1).mean(dim=1)
    if not means.isfinite().all():
        raise OptionError(f"the gradients of {model} grow beyond all numbers", "take a smaller `length` or `gain`")
    states, hidden = (tuple(row) for row in means.T.tolist())
    return Curve(model, trained, states, hidden)


def _norms(decoder: Decoder, regions: Tensor, words: Tensor) -> Tensor:
    """``(lags, sequences, 2)``: norms by the whole state and by the hidden state."""
    first = decoder.initial_state(regions)
    state = replace(first, cell=first.cell.requires_grad_())
    states = [state.cell]
    for time in range(words.shape[1] - 1):
        logits, state = decoder.step(words[:, time], state)
        states.append(state.cell)
    loss = cross_entropy(logits, words[:, -1], reduction="sum")  # rows do not meet, so each gets its own
    gradients = torch.stack(torch.autograd.grad(loss, states[::-1]))
    by_state, by_hidden = gradients.flatten(2).norm(dim=2), gradients[:, :, 0].norm(dim=2)
    return torch.stack((by_state, by_hidden), dim=2)
