"""An exponential moving average of weights, which writes better captions than the last weights alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class WeightAverage:
    """Average over the steps of a run (Polyak and Juditsky 1992; for networks Tarvainen and Valpola 2017).

    After step ``t``, counted from 1, ``average = d * average + (1 - d) * weights`` with
    ``d = min(decay, (1 + t) / (10 + t))``: a short run, and the beginning of a long one, forgets its first
    weights faster (the warm-up of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``).

    Args:
        parameters: what is averaged, by name; the average starts as a copy.
        decay: 0 < decay < 1.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.parameters, self.decay, self.steps = parameters, decay, 0
        self.weights = {name: value.detach().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in self.parameters.items():
            self.weights[name].lerp_(value, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"steps": self.steps, "weights": self.weights}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.steps = state["steps"]
        for name, value in self.weights.items():
            value.copy_(state["weights"][name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the parameters hold the average; afterwards they are as they were, to the bit."""
        with torch.no_grad():
            before = {name: value.detach().clone() for name, value in self.parameters.items()}
            try:
                for name, value in self.parameters.items():
                    value.copy_(self.weights[name])
                yield
            finally:
                for name, value in self.parameters.items():
                    value.copy_(before[name])
