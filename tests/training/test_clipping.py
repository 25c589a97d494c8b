from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from captioner.training.optim import REMEMBERED, Clipped, Clipper, gradient_norm
from captioner.training.options import ClipConfig
from tests.tolerance import summation_bound


def _parameters(scale: float = 1.0, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2, 2))]
    for parameter in parameters[:2]:  # the last one has no gradient
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
    return [*parameters]


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]


def _clip(limits: str, parameters: list[Tensor]) -> Clipped:
    return Clipper(ClipConfig.parse(limits)).clip(parameters, gradient_norm(parameters))


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_clipping_by_norm_does_what_torch_does(scale: float) -> None:
    ours, theirs = _parameters(scale), _parameters(scale)
    norm = gradient_norm(ours)
    told = _clip("norm:5", ours)
    expected = nn.utils.clip_grad_norm_(theirs, 5.0)
    assert norm == expected.item()
    assert told == Clipped(5.0, norm > 5)
    for got, want in zip(_gradients(ours), _gradients(theirs), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("limit", [0.1, 1.0, 50.0])
def test_clipping_by_value_does_what_torch_does(limit: float) -> None:
    ours, theirs = _parameters(), _parameters()
    largest = max(float(gradient.abs().max()) for gradient in _gradients(ours))
    assert _clip(f"value:{limit}", ours) == Clipped(None, largest > limit)
    nn.utils.clip_grad_value_(theirs, limit)
    for got, want in zip(_gradients(ours), _gradients(theirs), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_a_gradient_clipped_by_hand() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, -4.0])
    assert gradient_norm([parameter]) == 5.0
    _clip("norm:2.5", [parameter])
    assert parameter.grad.tolist() == pytest.approx([1.5, -2.0], rel=1e-5)
    parameter.grad = torch.tensor([3.0, -4.0])
    _clip("value:3.5", [parameter])
    assert parameter.grad.tolist() == [3.0, -3.5]


def test_value_comes_before_norm() -> None:
    ours, theirs = _parameters(10.0), _parameters(10.0)
    assert _clip("norm:2,value:1", ours) == Clipped(2.0, True)
    nn.utils.clip_grad_value_(theirs, 1.0)
    nn.utils.clip_grad_norm_(theirs, 2.0)
    assert gradient_norm(ours) == pytest.approx(2.0, rel=1e-4)
    for got, want in zip(_gradients(ours), _gradients(theirs), strict=True):
        torch.testing.assert_close(got, want)


def test_the_direction_stays_when_the_norm_is_limited() -> None:
    parameters = _parameters(100.0)
    before = torch.cat([gradient.flatten() for gradient in _gradients(parameters)])
    _clip("norm:1", parameters)
    after = torch.cat([gradient.flatten() for gradient in _gradients(parameters)])
    found = torch.cosine_similarity(before, after, dim=0).item()
    assert found == pytest.approx(1, rel=summation_bound(3 * len(before)))  # a product and two norms


@pytest.mark.parametrize("limits", ["none", "hidden:1e-9"])
def test_without_a_limit_on_weights_their_gradients_stay(limits: str) -> None:
    parameters = _parameters(1000.0)
    before = _gradients(parameters)
    assert _clip(limits, parameters) == Clipped(None, False)
    for got, want in zip(_gradients(parameters), before, strict=True):
        assert torch.equal(got, want)


@given(norms=st.lists(st.floats(0.01, 1e6), min_size=1, max_size=60), percentile=st.floats(0.5, 100.0))
@example(norms=[0.01, 0.010000000000000002], percentile=1.0)
def test_the_automatic_limit_is_numpys_percentile_of_all_norms_so_far(norms: list[float], percentile: float) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    clipper = Clipper(ClipConfig(percentile=percentile))
    for step, norm in enumerate(norms, 1):
        parameter.grad = torch.tensor([norm])
        clipped = clipper.clip([parameter], norm)
        threshold = float(np.percentile(norms[:step], percentile))
        assert clipped == Clipped(threshold, norm > threshold)
        # torch divides by the norm and a millionth, against division by zero
        share = threshold / (norm + 1e-6) if norm > threshold else 1.0
        assert parameter.grad.item() == pytest.approx(norm * share, rel=1e-6)


def test_the_automatic_limit_forgets_what_is_long_ago_and_goes_on_where_it_was() -> None:
    chance = random.Random(0)
    norms = [chance.lognormvariate(0, 1) for _ in range(REMEMBERED + 50)]
    clipper = Clipper(ClipConfig(percentile=10), norms)
    (parameter,) = _parameters()[:1]
    assert clipper.clip([parameter], 2.0).threshold == np.percentile([*norms[51:], 2.0], 10)
    again = Clipper(ClipConfig(percentile=10), list(clipper.norms))
    assert again.clip([parameter], 3.0) == clipper.clip([parameter], 3.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_no_number_shows_in_the_norm(bad: float) -> None:
    parameters = _parameters()
    assert parameters[0].grad is not None
    parameters[0].grad[0, 0] = bad
    assert not math.isfinite(gradient_norm(parameters))


def test_a_gradient_whose_square_is_no_number_still_has_a_norm_and_is_clipped() -> None:
    parameters, small = _parameters(1e25), _parameters()
    assert gradient_norm(parameters) == pytest.approx(1e25 * gradient_norm(small), rel=1e-5)
    _clip("norm:5", parameters)
    _clip("norm:1e-3", small)
    for got, want in zip(_gradients(parameters), _gradients(small), strict=True):
        torch.testing.assert_close(got / 5000, want, rtol=1e-2, atol=1e-8)


def test_nothing_to_clip_has_norm_zero() -> None:
    nothing: list[Tensor] = [nn.Parameter(torch.ones(2))]
    assert gradient_norm(nothing) == 0.0
    assert _clip("norm:5,value:1", nothing) == Clipped(5.0, False)
