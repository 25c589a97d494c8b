from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from captioner.model.cells import RecurrentCell, build_cell
from captioner.model.config import CELLS, NONLINEARITIES

ORACLES = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}

# Every cell alone, every cell in a stack, and the vanilla cell with the sigmoid.
VARIANTS = [
    *({"name": name, "layers": layers} for name, layers in itertools.product(CELLS, (1, 2))),
    {"name": "rnn", "nonlinearity": "sigmoid"},
    {"name": "lstm", "layers": 3, "residual_layers": True},
    {"name": "gated_rnn", "layers": 3, "residual_layers": True},
]


def make(input_size: int, hidden_size: int, **options: object) -> RecurrentCell:
    torch.manual_seed(0)
    options = dict(options)
    name = str(options.pop("name"))
    cell = build_cell(name, input_size, hidden_size, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # whatever the first weights are
    return cell


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def packed(inputs: Tensor, lengths: list[int]) -> PackedSequence:
    return pack_padded_sequence(inputs, torch.tensor(lengths), batch_first=True)


@pytest.mark.parametrize("name", ORACLES)
def test_a_step_equals_torchs_own_cell_in_value_and_gradient(name: str) -> None:
    cell = make(5, 7, name=name)
    oracle = ORACLES[name](5, 7).double()
    oracle.load_state_dict(
        {key.removesuffix("_l0").removeprefix("core."): value for key, value in cell.state_dict().items()}
    )
    inputs, state = double(3, 5), double(3, cell.parts, 7)
    ours = cell.step(inputs, state)
    theirs = oracle(inputs, (state[:, 0], state[:, 1]) if cell.parts == 2 else state[:, 0])
    theirs = torch.stack(theirs if cell.parts == 2 else (theirs,), dim=1)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    own = torch.autograd.grad((ours * weights).sum(), (inputs, state, *cell.parameters()))
    other = torch.autograd.grad((theirs * weights).sum(), (inputs, state, *oracle.parameters()))
    torch.testing.assert_close(own, other)


def by_the_book(name: str, x: Tensor, state: Tensor, p: dict[str, Tensor], squash: str = "tanh") -> Tensor:
    """One row, one step, as the equations stand in the docstrings; gates in torch's order."""
    h = state[0]
    if name in ORACLES:
        of_x, of_h = p["core.weight_ih_l0"] @ x, p["core.weight_hh_l0"] @ h
        b, c = p["core.bias_ih_l0"], p["core.bias_hh_l0"]
    else:
        of_x, of_h, b, c = p["of_input.weight"] @ x, p["of_state.weight"] @ h, p["of_input.bias"], 0
    total = of_x + of_h + b + c
    if name == "rnn":
        return torch.stack([total.tanh() if squash == "tanh" else 1 / (1 + (-total).exp())])
    if name == "residual_rnn":
        return torch.stack([h + total.tanh()])
    if name == "gated_rnn":
        forget, update = total.chunk(2)
        return torch.stack([h / (1 + (-forget).exp()) + update.tanh()])
    if name == "lstm":
        i, f, g, o = total.chunk(4)
        memory = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return torch.stack([o.sigmoid() * memory.tanh(), memory])
    r, z, _ = (part.sigmoid() for part in total.chunk(3))
    n = ((of_x + b).chunk(3)[2] + r * (of_h + c).chunk(3)[2]).tanh()
    return torch.stack([(1 - z) * n + z * h])


@pytest.mark.parametrize(
    ("name", "nonlinearity"), [*((name, "tanh") for name in CELLS), ("rnn", "sigmoid")], ids="-".join
)
def test_a_step_is_the_equation(name: str, nonlinearity: str) -> None:
    cell = make(5, 7, name=name, nonlinearity=nonlinearity)
    parameters = dict(cell.named_parameters())
    inputs, state = double(3, 5), double(3, cell.parts, 7)
    expected = [by_the_book(name, x, s, parameters, nonlinearity) for x, s in zip(inputs, state, strict=True)]
    torch.testing.assert_close(cell.step(inputs, state), torch.stack(expected))


def test_the_gru_differs_from_the_textbook_in_the_reset_gate_and_in_the_name_of_z() -> None:
    cell = make(5, 7, name="gru")
    inputs, state = double(3, 5), double(3, 1, 7)
    hidden = state[:, 0]

    def textbook() -> Tensor:
        """``z, r = sigmoid(W [h, x])``, ``h' = tanh(W [r * h, x])``, ``h = (1 - z) h + z h'``."""
        w_ih, w_hh, b_ih, b_hh = cell.core.all_weights[0]
        r, z, _ = (inputs @ w_ih.T + hidden @ w_hh.T + b_ih + b_hh).chunk(3, dim=1)
        r, z = r.sigmoid(), (-z).sigmoid()  # torch's z, by its other name
        candidate = inputs @ w_ih[14:].T + (r * hidden) @ w_hh[14:].T + b_ih[14:] + b_hh[14:]
        return (1 - z) * hidden + z * candidate.tanh()

    assert not torch.allclose(cell.step(inputs, state)[:, 0], textbook())
    with torch.no_grad():
        cell.core.bias_ih_l0[:7] = 100.0  # a reset gate that lets all through stands nowhere in the way
    torch.testing.assert_close(cell.step(inputs, state)[:, 0], textbook())


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_gradients_of_a_step_and_of_a_sequence_are_right(variant: dict[str, object]) -> None:
    cell = make(2, 2, **variant)
    inputs, state = double(2, 2, 2), double(2, cell.parts, 2)
    parameters = tuple(cell.parameters())  # changed in place by gradcheck, so they need no place in the call

    def step(inputs: Tensor, state: Tensor, *_: Tensor) -> Tensor:
        return cell.step(inputs[:, 0], state)

    def sequence(inputs: Tensor, state: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        return cell(packed(inputs, [2, 1]), state)

    assert torch.autograd.gradcheck(step, (inputs, state, *parameters))
    assert torch.autograd.gradcheck(sequence, (inputs, state, *parameters))


@settings(max_examples=15, deadline=None)
@given(
    variant=st.sampled_from(VARIANTS),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5).map(lambda found: sorted(found)[::-1]),
    limit=st.sampled_from([None, 0.05, 1e9]),
)
def test_a_sequence_equals_its_steps(variant: dict[str, object], lengths: list[int], limit: float | None) -> None:
    cell = make(4, 6, **variant)
    inputs, first = double(len(lengths), lengths[0], 4), double(len(lengths), cell.parts, 6)
    outputs, last = cell(packed(inputs, lengths), first, limit)
    states = [first]
    shown = []
    for time in range(lengths[0]):
        going_on = sum(length > time for length in lengths)
        state = cell.step(inputs[:going_on, time], states[-1][:going_on], limit)
        shown.append(cell.output(state))
        states.append(state)
    expected_last = torch.stack([states[length][row] for row, length in enumerate(lengths)])
    torch.testing.assert_close(outputs, torch.cat(shown))
    torch.testing.assert_close(last, expected_last)
    weights = torch.randn_like(outputs)
    ours = torch.autograd.grad((outputs * weights).sum(), (inputs, first, *cell.parameters()))
    theirs = torch.autograd.grad((torch.cat(shown) * weights).sum(), (inputs, first, *cell.parameters()))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ORACLES)
def test_layers_equal_torchs_own(name: str) -> None:
    cell = make(4, 6, name=name, layers=3)
    oracle = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[name](4, 6, num_layers=3).double()
    oracle.load_state_dict(
        {
            f"{key.split('.')[-1].removesuffix('_l0')}_l{key.split('.')[1]}": value
            for key, value in cell.state_dict().items()
        }
    )
    lengths = [5, 4, 4, 1]
    inputs, first = double(4, 5, 4), double(4, cell.parts, 6)
    outputs, last = cell(packed(inputs, lengths), first)
    layered = first.view(4, 3, -1, 6).flip(1).permute(2, 1, 0, 3)  # (parts of a layer, layers, batch, hidden)
    theirs, state = oracle(
        packed(inputs, lengths), tuple(layered.contiguous()) if name == "lstm" else layered[0].contiguous()
    )
    torch.testing.assert_close(outputs, theirs.data)
    stacked = torch.stack(state) if name == "lstm" else state[None]
    torch.testing.assert_close(last, stacked.permute(2, 1, 0, 3).flip(1).reshape(4, -1, 6))
    own = torch.autograd.grad(outputs.pow(2).sum(), (inputs, first), retain_graph=True)
    other = torch.autograd.grad(theirs.data.pow(2).sum(), (inputs, first))
    torch.testing.assert_close(own, other)


def test_residual_layers_add_what_they_read() -> None:
    stack = make(4, 6, name="lstm", layers=3, residual_layers=True)
    inputs, state = double(2, 4), double(2, 6, 6)
    top, middle, lowest = state.chunk(3, dim=1)
    one, two, three = stack.layers
    lowest = one.step(inputs, lowest)
    middle = two.step(lowest[:, 0], middle)
    between = middle[:, 0] + lowest[:, 0]
    top = three.step(between, top)
    after = stack.step(inputs, state)
    torch.testing.assert_close(after, torch.cat((top, middle, lowest), dim=1))
    torch.testing.assert_close(stack.output(after), top[:, 0] + between)


def test_the_top_layer_is_the_output_without_residual_links() -> None:
    stack = make(4, 6, name="gru", layers=2)
    state = stack.step(double(2, 4), double(2, 2, 6))
    assert torch.equal(stack.output(state), state[:, 0])


def test_dropout_lies_between_layers_and_only_in_training() -> None:
    stack = make(4, 50, name="lstm", layers=2, dropout=0.5)
    inputs, state = double(1, 4), double(1, 4, 50)
    seen: list[Tensor] = []
    stack.layers[1].register_forward_pre_hook(lambda _, args: seen.append(args[0].data))
    stack(packed(inputs.unsqueeze(1), [1]), state)
    below = stack.layers[0].step(inputs, state[:, 2:])[:, 0]
    kept = seen[0] != 0
    assert 5 < kept.sum() < 45
    torch.testing.assert_close(seen[0][kept], 2 * below[kept])
    stack.eval()
    outputs, _ = stack(packed(inputs.unsqueeze(1), [1]), state)
    torch.testing.assert_close(outputs, stack.output(stack.step(inputs, state)))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_limit_bounds_each_element_of_the_gradient_by_the_hidden_state(variant: dict[str, object]) -> None:
    cell = make(4, 6, **variant)
    inputs, first = double(3, 4, 4), double(3, cell.parts, 6)
    seen: list[Tensor] = []
    layers = getattr(cell, "layers", [cell])
    for layer in layers:
        advance = layer.advance

        def watched(projected: Tensor, state: Tensor, advance: object = advance) -> Tensor:
            after = advance(projected, state)  # type: ignore[operator]
            # a factor of one in between: what flows on to it was limited, or not, before
            after = after * 1.0
            inner = after * 1.0
            after.register_hook(lambda gradient: seen.append(gradient[:, 0]))
            return inner

        layer.advance = watched
    outputs, _ = cell(packed(inputs, [4, 4, 4]), first, 0.01)
    outputs.backward(torch.full_like(outputs, 5.0))
    assert len(seen) == 4 * len(layers)
    assert all(gradient.abs().max() <= 0.01 for gradient in seen)
    assert max(gradient.abs().max() for gradient in seen) == 0.01


def test_the_gate_of_the_lstm_and_of_the_gated_cell_starts_open() -> None:
    biases = dict(build_cell("lstm", 3, 4).named_parameters())
    total = biases["core.bias_ih_l0"] + biases["core.bias_hh_l0"]
    assert torch.equal(total[4:8], torch.ones(4))
    biases = dict(build_cell("gated_rnn", 3, 4).named_parameters())
    assert torch.equal(biases["of_input.bias"], torch.tensor([1.0] * 4 + [0.0] * 4))


def test_a_fresh_residual_cell_adds_up_and_hands_gradients_back_as_they_are() -> None:
    cell = build_cell("residual_rnn", 4, 6).double()
    inputs, first = double(1, 9, 4), double(1, 1, 6)
    outputs, _ = cell(packed(inputs, [9]), first)
    increments = torch.tanh(inputs[0] @ cell.of_input.weight.T + cell.of_input.bias)
    torch.testing.assert_close(outputs, first[0] + increments.cumsum(dim=0))
    weights = torch.randn(6, dtype=torch.float64)
    (found,) = torch.autograd.grad(outputs[-1] @ weights, first)
    torch.testing.assert_close(found[0, 0], weights)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_the_vanilla_cell_keeps_its_nonlinearity_in_a_stack(nonlinearity: str) -> None:
    stack = make(3, 4, name="rnn", layers=2, nonlinearity=nonlinearity)
    states = stack.step(double(50, 3), double(50, 2, 4))
    assert (states.min() < 0) == (nonlinearity == "tanh")
