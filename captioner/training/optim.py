"""What changes the weights: clipping, parameter groups, schedules, scheduled sampling, a moving average."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm

from captioner.model.decoder import Decoder
from captioner.training.options import ClipConfig, TrainingOptions

REMEMBERED = 10_000  # norms; what a run did longer ago says little about it now


class Clipped(NamedTuple):
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

    def __init__(self, limits: ClipConfig, norms: Sequence[float] = ()) -> None:
        self.limits = limits
        self.norms = deque(norms, maxlen=REMEMBERED)

    def clip(self, parameters: Sequence[torch.Tensor], norm: float) -> Clipped:
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
        threshold = self.limits.norm
        if self.limits.percentile is not None:
            self.norms.append(norm)  # the norm in hand counts too (Seetharaman et al. 2020, eq. 2)
            threshold = float(np.percentile(self.norms, self.limits.percentile))
        if threshold is not None and norm > threshold:
            acted = True
            clip_grads_with_norm_(parameters, threshold, torch.tensor(norm))
        return Clipped(threshold, acted)


def gradient_norm(parameters: Sequence[torch.Tensor]) -> float:
    """Euclidean norm of all gradients that there are together; not finite if and only if an element is not."""
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


def _largest(parameters: Sequence[torch.Tensor]) -> float:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return get_total_norm(gradients, norm_type=math.inf).item() if gradients else 0.0


class EMA:
    """Average over the steps of a run (Polyak and Juditsky 1992; for networks Tarvainen and Valpola 2017).

    After step ``t``, counted from 1, ``average = d * average + (1 - d) * weights`` with
    ``d = min(decay, (1 + t) / (10 + t))``: a short run, and the beginning of a long one, forgets its first
    weights faster (the warm-up of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``).

    Args:
        parameters: what is averaged, by name; the average starts as a copy. Without any, nothing happens.
        decay: 0 < decay < 1.
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor], decay: float) -> None:
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


def trained_parameters(network: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The weights that require gradients, by name; a tied weight appears once."""
    return {name: value for name, value in network.named_parameters() if value.requires_grad}


def parameter_groups(parameters: Mapping[str, torch.nn.Parameter], options: TrainingOptions) -> list[dict[str, Any]]:
    """Groups for the optimiser: matrices decay, biases and norms do not (Loshchilov and Hutter 2019).

    Of an encoder the kernels decay too, but not what else has several dimensions: tables of relative positions, scales
    of layers, the token of the class. ``parameters`` are by their name in the network.

    Returns:
        Groups with ``params``, ``weight_decay`` and ``highest``, the learning rate at its highest.
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, value in parameters.items():
        encoder = name.startswith("encoder.")
        decays = value.ndim > 1 and (name.endswith("weight") or not encoder)
        key = (options.encoder_lr if encoder else options.lr, options.weight_decay if decays else 0.0)
        groups.setdefault(key, []).append(value)
    return [
        {"params": values, "weight_decay": decay, "highest": highest} for (highest, decay), values in groups.items()
    ]


def learning_rate(step: int, total: int, highest: float, warmup: float) -> float:
    """Linear rise to ``highest`` over the share ``warmup`` of all steps, then a cosine fall to zero.

    Loshchilov and Hutter 2017 ("SGDR"), eq. 5, without restarts; warm-up as in Goyal et al. 2017. ``step`` counts the
    steps before this one, ``total`` those of the whole run.
    """
    rise = warmup * total
    if step < rise:
        return highest * (step + 1) / (math.ceil(rise) + 1)
    return highest * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, total - rise)))


@dataclass(frozen=True)
class ScheduledSampling:
    """Chooses the words that the decoder reads (Bengio et al. 2015, section 2.4): its ``next_input``.

    At each position of each caption a coin is tossed: either the true word is fed, or one that is drawn from the
    model's own distribution after the word before. No gradient flows through the draw.

    Attributes:
        decoder: the model in training.
        probability: of feeding the model's own word, 0 to 1.
    """

    decoder: Decoder
    probability: float

    @torch.no_grad()
    def __call__(self, outputs: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Mix true words and drawn ones: outputs of the step before ``(rows, hidden)``, ids ``(rows,)`` -> the same."""
        own = torch.rand(len(words), device=words.device) < self.probability
        rows = own.nonzero().squeeze(1)
        fed = words.clone()
        fed[rows] = draw(self.decoder.logits(outputs[rows]))
        return fed


def draw(logits: torch.Tensor) -> torch.Tensor:
    """One id for each row from ``softmax(logits)``: ``(rows, vocab)`` -> ``(rows,)``.

    As ``torch.multinomial``, but logits that are not numbers give some id instead of an exception, so that the step is
    skipped like any other whose loss is not finite.
    """
    probabilities = logits.float().softmax(dim=-1)
    # The index of the smallest of exponential variables with rates p is distributed as p.
    return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(dim=-1)


def sampling_probability(step: int, total: int, highest: float) -> float:
    """Linear rise from zero before the first of ``total`` steps to ``highest`` after the last one.

    One minus the linear decay of Bengio et al. 2015, section 2.4.
    """
    return highest * step / total
