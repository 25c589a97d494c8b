"""Gradient clipping (Pascanu et al. 2013, "On the difficulty of training recurrent neural networks")."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm

from captioner.training.limits import ClipLimits

REMEMBERED = 10_000  # norms; what a run did longer ago says little about it now


@dataclass(frozen=True)
class Clipped:
    """What clipping did in one step.

    Attributes:
        threshold: limit of the norm in this step; None if there was none.
        acted: whether any gradient was changed.
    """

    threshold: float | None
    acted: bool


class Clipper:
    """Limits the gradients of weights, step after step.

    Args:
        limits: of values and norm; that of hidden states acts earlier, within the backward pass.
        norms: norms of past steps, of a run that goes on.
    """

    def __init__(self, limits: ClipLimits, norms: Sequence[float] = ()) -> None:
        self.limits = limits
        self.norms = deque(norms, maxlen=REMEMBERED)

    def clip(self, parameters: Sequence[Tensor], norm: float) -> Clipped:
        """Limit gradients in place: first each element, then the norm.

        Args:
            parameters: their ``.grad`` is changed; those without one are passed over.
            norm: of all gradients before, see :func:`gradient_norm`; finite.
        """
        acted = False
        if self.limits.value is not None:
            acted = _largest(parameters) > self.limits.value
            if acted:
                clip_grad_value_(parameters, self.limits.value)
                norm = gradient_norm(parameters)
        threshold = self._threshold(norm)
        if threshold is not None and norm > threshold:
            acted = True
            clip_grads_with_norm_(parameters, threshold, torch.tensor(norm))
        return Clipped(threshold, acted)

    def _threshold(self, norm: float) -> float | None:
        if self.limits.percentile is None:
            return self.limits.norm
        # The norm in hand counts too (Seetharaman et al. 2020, eq. 2).
        self.norms.append(norm)
        return float(np.percentile(self.norms, self.limits.percentile))


def gradient_norm(parameters: Sequence[Tensor]) -> float:
    """Euclidean norm of all gradients together; not finite if and only if an element is not.

    Args:
        parameters: those without a gradient are passed over.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return 0.0
    norm = get_total_norm(gradients).item()
    if math.isfinite(norm):
        return norm
    # The squares of a gradient above 1e19 are infinite in float32 though it is not.
    largest = _largest(parameters)
    if not math.isfinite(largest):
        return norm
    return largest * get_total_norm([gradient / largest for gradient in gradients]).item()


def _largest(parameters: Sequence[Tensor]) -> float:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return get_total_norm(gradients, norm_type=math.inf).item() if gradients else 0.0
