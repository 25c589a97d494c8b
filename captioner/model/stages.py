"""A network as a row of stages, so that training can begin at one of them.

Stages are numbered from 1, which is the first to see the picture. Where a paper numbers the stages of its
network, the numbers agree with it: ``conv1`` to ``conv5_x`` of a ResNet (He et al. 2016, table 1) are 1 to
5, those of an EfficientNet (Tan and Le 2019, table 1) are 1 to 9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Lists of layers within torchvision's networks; a stage is a part of one, not all of it.
_LISTS = {"features", "layers", "trunk_output", "blocks"}
_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Stage:
    """Some layers of a network, one behind the other.

    Attributes:
        name: short name, such as ``layer4``.
        parts: the layers, in order; most are modules.
        weights: what holds the weights of the layers, where that is not the layers themselves.
    """

    name: str
    parts: tuple[Callable[[Tensor], Tensor], ...]
    weights: tuple[nn.Module | nn.Parameter, ...] = ()

    def __call__(self, features: Tensor) -> Tensor:
        """Outputs of the last layer for inputs of the first."""
        for part in self.parts:
            features = part(features)
        return features

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights."""
        for holder in (*self.parts, *self.weights):
            if isinstance(holder, nn.Module):
                yield from holder.parameters()
            elif isinstance(holder, nn.Parameter):
                yield holder


def split(network: nn.Module) -> tuple[Stage, ...]:
    """The stages of a chain of modules.

    A stage begins at every module with weights of its own. Normalisation, activation and pooling belong
    to the stage before them. What is no chain is one stage.
    """
    stages: list[tuple[str, list[nn.Module]]] = []
    for name, module in _chain(network):
        if not stages or not (isinstance(module, _NORMS) or _without_weights(module)):
            stages.append((name, []))
        stages[-1][1].append(module)
    return tuple(Stage(name, tuple(modules)) for name, modules in stages)


def listed(stages: Iterable[Stage]) -> str:
    """Numbers and names of stages in one line: ``1 conv1, 2 layer1``."""
    return ", ".join(f"{number} {stage.name}" for number, stage in enumerate(stages, 1))


def _chain(network: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    if not isinstance(network, nn.Sequential):
        yield "all", network
        return
    for name, module in network.named_children():
        if name in _LISTS and isinstance(module, nn.Sequential):
            yield from ((f"{name}.{child}", layer) for child, layer in module.named_children())
        else:
            yield name, module


def _without_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is None
