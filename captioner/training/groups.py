"""Which weights are trained, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from captioner.training.options import TrainingOptions

_ENCODER = "encoder."


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that require gradients, by name; a tied weight appears once."""
    return {name: value for name, value in network.named_parameters() if value.requires_grad}


def parameter_groups(
    parameters: Mapping[str, nn.Parameter], options: TrainingOptions
) -> list[dict[str, Any]]:
    """Groups for the optimiser: matrices decay, biases and norms do not (Loshchilov and Hutter 2019).

    Of an encoder the kernels decay too, but not what else has several dimensions: tables of relative
    positions, scales of layers, the token of the class.

    Args:
        parameters: what is trained, by its name in the network.
        options: learning rates and decay.

    Returns:
        Groups with ``params``, ``weight_decay`` and ``highest``, the learning rate at its highest.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in parameters.items():
        encoder = name.startswith(_ENCODER)
        decays = value.ndim > 1 and (name.endswith("weight") or not encoder)
        key = (options.encoder_lr if encoder else options.lr, options.weight_decay if decays else 0.0)
        groups.setdefault(key, []).append(value)
    return [
        {"params": values, "weight_decay": decay, "highest": highest}
        for (highest, decay), values in groups.items()
    ]
