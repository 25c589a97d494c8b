from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from captioner.errors import OptionError
from captioner.gradients import measure as module
from captioner.gradients.measure import Curve, measure, subjects
from captioner.gradients.options import GradientOptions
from captioner.model.config import CELLS
from captioner.model.decoder import Decoder
from tests.model.test_decoder import small_decoder

pytestmark = pytest.mark.usefixtures("double")

WORDS = torch.tensor([[1, 5, 3, 9, 7], [1, 4, 4, 10, 2]])


def regions() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 4, 6, dtype=torch.float64)


def test_the_vanilla_cell_equals_its_product_of_jacobians() -> None:
    decoder = small_decoder(cell="rnn")
    core = decoder.cell.core
    weight = core.weight_hh_l0.detach()
    found = measure("x", decoder, regions(), WORDS, trained=False)
    expected = torch.zeros(5, 2)
    for row in range(2):
        hidden = [decoder.initial_state(regions()[row : row + 1]).cell[0, 0]]
        for word in WORDS[row, :-1]:
            total = core.weight_ih_l0 @ decoder.embedding.weight[word] + core.bias_ih_l0
            hidden.append((total + weight @ hidden[-1] + core.bias_hh_l0).tanh())
        wrong = decoder.logits(hidden[-1]).softmax(dim=0)
        wrong[WORDS[row, -1]] -= 1
        gradient = wrong @ decoder.output.weight
        for lag in range(5):
            expected[lag, row] = gradient.norm()
            gradient = (gradient * (1 - hidden[4 - lag] ** 2)) @ weight
    torch.testing.assert_close(torch.tensor(found.states), expected.mean(dim=1))
    assert found.hidden == found.states


@pytest.mark.parametrize(
    ("cell", "attention", "layers"),
    list(itertools.product(("lstm", "gated_rnn"), ("none", "additive", "adaptive"), (1, 2))),
)
def test_norms_equal_finite_differences(cell: str, attention: str, layers: int) -> None:
    decoder = small_decoder(cell=cell, attention=attention, layers=layers)
    found = measure("x", decoder, regions(), WORDS, trained=False)
    expected = torch.zeros(5, 2, 2)
    for row, lag in itertools.product(range(2), range(5)):
        gradient = _difference_quotients(decoder, row, lag)
        expected[lag, row] = torch.tensor([gradient.norm(), gradient[0].norm()])
    means = expected.mean(dim=1)
    torch.testing.assert_close(torch.tensor(found.states), means[:, 0], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(torch.tensor(found.hidden), means[:, 1], rtol=1e-4, atol=1e-7)


def _difference_quotients(decoder: Decoder, row: int, lag: int) -> Tensor:
    """dL_T/ds_t of one sequence, ``(parts, hidden)``: all its elements are nudged at once, as a batch."""
    words = WORDS[row]
    state = decoder.initial_state(regions()[row : row + 1])
    for word in words[: 4 - lag]:
        _, state = decoder.step(word[None], state)
    numbers = state.cell.numel()
    nudges = 1e-5 * torch.eye(numbers, dtype=torch.float64).view(numbers, *state.cell.shape[1:])
    losses = []
    for sign in (1, -1):
        wide = state.select(torch.zeros(numbers, dtype=torch.long))
        nudged = replace(wide, cell=wide.cell + sign * nudges)
        logits = decoder.logits(decoder.shown(nudged)[0])
        for word in words[4 - lag : 4]:
            logits, nudged = decoder.step(word.expand(numbers), nudged)
        losses.append(cross_entropy(logits, words[-1].expand(numbers), reduction="none"))
    return ((losses[0] - losses[1]) / 2e-5).view(state.cell.shape[1:])


def fresh_curves(**changes: object) -> dict[str, Curve]:
    options = GradientOptions(hidden_size=64, length=20, sequences=8, **changes)  # type: ignore[arg-type]
    found = [measure(*subject[:4], trained=subject.trained) for subject in subjects(options)]
    return {curve.model: curve for curve in found}


def test_fresh_cells_vanish_hold_and_lie_between() -> None:
    """The lecture's claim: the vanilla cell vanishes, the residual one does not, gates lie in between."""
    found = {model: curve.relative for model, curve in fresh_curves().items()}
    assert set(found) == set(CELLS)
    assert found["residual_rnn"] == pytest.approx([1.0] * 21)
    assert found["rnn"][20] < 1e-4
    for gated in ("gated_rnn", "lstm", "gru"):
        assert found["rnn"][20] < found[gated][20] < found["residual_rnn"][20]
    assert all(later < earlier for earlier, later in itertools.pairwise(found["rnn"]))


def test_the_sigmoid_vanishes_faster_than_tanh() -> None:
    tanh = fresh_curves(cell=("rnn",))["rnn"].relative
    sigmoid = fresh_curves(cell=("rnn",), nonlinearity="sigmoid")["rnn (sigmoid)"].relative
    # its slope is 1/4 at most, that of tanh 1
    assert all(later <= 0.25 * earlier for earlier, later in itertools.pairwise(sigmoid))
    assert sigmoid[20] < 1e-5 * tanh[20]


@pytest.mark.parametrize("gain", [0.5, 0.9])
def test_rotations_that_shrink_bound_the_vanilla_cell(gain: float) -> None:
    """Pascanu et al. 2013, section 2.1: each step multiplies by at most the largest singular value."""
    relative = fresh_curves(cell=("rnn",), gain=gain)[f"rnn, gain {gain:g}"].relative
    assert all(later <= gain * earlier for earlier, later in itertools.pairwise(relative))


def test_rotations_that_stretch_make_the_vanilla_cell_explode() -> None:
    assert fresh_curves(cell=("rnn",), gain=4.0)["rnn, gain 4"].relative[20] > 100


def test_the_same_seed_measures_the_same_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    once = fresh_curves(cell=("lstm",))["lstm"]
    assert fresh_curves(cell=("lstm",))["lstm"] == once
    assert fresh_curves(cell=("lstm",), seed=1)["lstm"] != once
    monkeypatch.setattr(module, "_NUMBERS", 3 * 2 * 64 * 21)  # three sequences at a time
    in_parts = fresh_curves(cell=("lstm",))["lstm"]
    assert in_parts.states == pytest.approx(once.states)


def test_gradients_that_are_no_numbers_are_refused() -> None:
    decoder = small_decoder(cell="residual_rnn")
    with torch.no_grad():
        decoder.output.weight.fill_(float("nan"))
    with pytest.raises(OptionError, match="the gradients of mine grow beyond all numbers"):
        measure("mine", decoder, regions(), WORDS, trained=True)
