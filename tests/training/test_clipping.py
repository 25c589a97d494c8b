from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from captioner.training.clipping import clip_gradients


def _parameters(scale: float = 1.0, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2, 2))]
    for parameter in parameters[:2]:  # the last one has no gradient
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
    return [*parameters]


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]


def _norm(gradients: list[Tensor]) -> float:
    return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_clipping_by_norm_does_what_torch_does(scale: float) -> None:
    ours, theirs = _parameters(scale), _parameters(scale)
    norm = clip_gradients(ours, norm=5.0)
    expected = nn.utils.clip_grad_norm_(theirs, 5.0)
    assert norm == pytest.approx(expected.item())
    for got, want in zip(_gradients(ours), _gradients(theirs), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("limit", [0.1, 1.0, 50.0])
def test_clipping_by_value_does_what_torch_does(limit: float) -> None:
    ours, theirs = _parameters(), _parameters()
    clip_gradients(ours, value=limit)
    nn.utils.clip_grad_value_(theirs, limit)
    for got, want in zip(_gradients(ours), _gradients(theirs), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_value_comes_before_norm_and_the_norm_told_is_the_one_before_both() -> None:
    ours, theirs = _parameters(10.0), _parameters(10.0)
    before = _norm(_gradients(ours))
    assert clip_gradients(ours, norm=2.0, value=1.0) == pytest.approx(before)
    nn.utils.clip_grad_value_(theirs, 1.0)
    nn.utils.clip_grad_norm_(theirs, 2.0)
    assert _norm(_gradients(ours)) == pytest.approx(2.0, rel=1e-4)
    for got, want in zip(_gradients(ours), _gradients(theirs), strict=True):
        torch.testing.assert_close(got, want)


def test_the_direction_stays_when_the_norm_is_limited() -> None:
    parameters = _parameters(100.0)
    before = torch.cat([gradient.flatten() for gradient in _gradients(parameters)])
    clip_gradients(parameters, norm=1.0)
    after = torch.cat([gradient.flatten() for gradient in _gradients(parameters)])
    assert torch.cosine_similarity(before, after, dim=0).item() == pytest.approx(1.0)


@pytest.mark.parametrize(("norm", "value"), [(None, None), (0.0, None), (0.0, 0.0)])
def test_zero_and_none_switch_clipping_off(norm: float | None, value: float | None) -> None:
    parameters = _parameters(1000.0)
    before = _gradients(parameters)
    assert clip_gradients(parameters, norm=norm, value=value) == pytest.approx(_norm(before))
    for got, want in zip(_gradients(parameters), before, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_shows_in_the_norm(bad: float) -> None:
    parameters = _parameters()
    assert parameters[0].grad is not None
    parameters[0].grad[0, 0] = bad
    assert not math.isfinite(clip_gradients(parameters, norm=5.0, value=1.0))


def test_nothing_to_clip_has_norm_zero() -> None:
    assert clip_gradients([nn.Parameter(torch.ones(2))], norm=5.0, value=1.0) == 0.0
