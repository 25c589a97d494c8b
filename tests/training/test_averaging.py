from __future__ import annotations

import pytest
import torch
from torch import nn

from captioner.training.optim import EMA

pytestmark = pytest.mark.usefixtures("double")


def _walk(average: EMA, weight: nn.Parameter, values: list[float]) -> None:
    for value in values:
        with torch.no_grad():
            weight[:] = value
        average.update()


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.999])
def test_it_follows_the_formula_with_its_warm_up(decay: float) -> None:
    weight = nn.Parameter(torch.full((2,), 3.0))
    average = EMA({"weight": weight}, decay)
    values = [float(value) for value in torch.randn(30, generator=torch.Generator().manual_seed(0))]
    _walk(average, weight, values)
    expected = 3.0
    for step, value in enumerate(values, 1):
        now = min(decay, (1 + step) / (10 + step))
        expected = now * expected + (1 - now) * value
    assert average.weights["weight"].tolist() == pytest.approx([expected, expected])


def test_late_in_a_run_the_decay_is_the_one_asked_for() -> None:
    weight = nn.Parameter(torch.zeros(1))
    average = EMA({"weight": weight}, 0.9)
    _walk(average, weight, [0.0] * 100 + [1.0])
    assert average.weights["weight"].item() == pytest.approx(0.1)


def test_it_is_applied_for_a_while_and_training_goes_on_with_the_same_bits() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 4)
    average = EMA(dict(layer.named_parameters()), 0.5)
    with torch.no_grad():
        layer.weight += torch.randn(4, 5)
    average.update()
    before = {name: value.detach().clone() for name, value in layer.named_parameters()}
    with average.applied():
        for name, value in layer.named_parameters():
            assert torch.equal(value, average.weights[name])
        assert not torch.equal(layer.weight, before["weight"])
    # Also when what is done with the average fails.
    with pytest.raises(RuntimeError), average.applied():
        raise RuntimeError
    for name, value in layer.named_parameters():
        assert torch.equal(value, before[name])
        assert value.requires_grad


def test_a_saved_average_goes_on_to_the_bit() -> None:
    weight = nn.Parameter(torch.zeros(3))
    whole = EMA({"weight": weight}, 0.95)
    _walk(whole, weight, [1.0, 2.0])
    again = EMA({"weight": weight}, 0.95)
    again.load_state_dict(whole.state_dict())
    for average in (whole, again):
        _walk(average, weight, [5.0, -1.0, 3.0])
    assert torch.equal(whole.weights["weight"], again.weights["weight"])
    assert whole.steps == again.steps == 5
