"""Gradient clipping (Pascanu et al. 2013, "On the difficulty of training recurrent neural networks")."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm


def clip_gradients(
    parameters: Sequence[Tensor], *, norm: float | None = None, value: float | None = None
) -> float:
    """Limit gradients in place.

    Args:
        parameters: their ``.grad`` is changed; those without one are passed over.
        norm: if the norm of all gradients together is larger, all are scaled to it (algorithm 1 of the
            paper); None or 0 for no limit.
        value: every element is first limited to ``[-value, value]``; None or 0 for no limit.

    Returns:
        The norm before any clipping; not finite if a gradient is not.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return 0.0
    before = get_total_norm(gradients)
    if value:
        clip_grad_value_(parameters, value)
    if norm:
        clip_grads_with_norm_(parameters, norm, get_total_norm(gradients) if value else before)
    return before.item()
