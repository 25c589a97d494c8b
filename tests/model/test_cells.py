from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from captioner.model.cells import build_cell
from captioner.model.config import CELLS

ORACLES = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}


def test_every_cell_that_a_configuration_may_name_can_be_built() -> None:
    for name in CELLS:
        cell = build_cell(name, 3, 4)
        assert cell.step(torch.randn(2, 3), torch.randn(2, cell.parts, 4)).shape == (2, cell.parts, 4)


@pytest.mark.parametrize("name", CELLS)
def test_a_step_equals_torchs_own_cell_in_value_and_gradient(name: str) -> None:
    cell = build_cell(name, 5, 7).double()
    oracle = ORACLES[name](5, 7).double()
    oracle.load_state_dict(
        {key.removesuffix("_l0").removeprefix("core."): value for key, value in cell.state_dict().items()}
    )
    inputs = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    state = torch.randn(3, cell.parts, 7, dtype=torch.float64, requires_grad=True)
    ours = cell.step(inputs, state)
    theirs = oracle(inputs, (state[:, 0], state[:, 1]) if cell.parts == 2 else state[:, 0])
    theirs = torch.stack(theirs if cell.parts == 2 else (theirs,), dim=1)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    for own, other in zip(
        torch.autograd.grad((ours * weights).sum(), (inputs, state)),
        torch.autograd.grad((theirs * weights).sum(), (inputs, state)),
        strict=True,
    ):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("name", CELLS)
def test_a_sequence_equals_its_steps(name: str) -> None:
    cell = build_cell(name, 4, 6).double()
    lengths = [5, 3, 3, 1]
    inputs = torch.randn(4, 5, 4, dtype=torch.float64)
    first = torch.randn(4, cell.parts, 6, dtype=torch.float64)
    packed = pack_padded_sequence(inputs, torch.tensor(lengths), batch_first=True)
    outputs = cell(packed, first)
    expected = []
    state = first
    for time in range(5):
        going_on = sum(length > time for length in lengths)
        state = cell.step(inputs[:going_on, time], state[:going_on])
        expected.append(state[:, 0])
    torch.testing.assert_close(outputs, torch.cat(expected))


def test_the_lstm_starts_with_an_open_forget_gate() -> None:
    cell = build_cell("lstm", 3, 4)
    biases = dict(cell.named_parameters())
    total = biases["core.bias_ih_l0"] + biases["core.bias_hh_l0"]
    assert torch.equal(total[4:8], torch.ones(4))
