"""Where a model computes, and in which numbers."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from captioner.errors import OptionError

_TRACING = threading.Lock()  # tracing replaces the call of all modules there are, and two would not undo it


class _Tracer(fx.Tracer):
    """Follows a network down to its layers; convolutions of other packages count as layers too."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:  # another network, which is at work meanwhile
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def fuse(network: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode that runs faster and computes the same.

    Batch-norm is folded into the convolution before it, and activations whose input nobody else reads
    work in place. In a network without batch-norm (transformers) there is nothing to fold.
    """
    network = copy.deepcopy(network).eval()
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    with _TRACING:
        graph = _Tracer().trace(network)
    fused = fx.GraphModule(network, graph)
    modules: dict[str, Any] = dict(fused.named_modules())
    for node in list(graph.nodes):
        if node.op != "call_module" or not isinstance(node.args[0], fx.Node):
            continue
        before, layer = node.args[0], modules[str(node.target)]
        if len(before.users) > 1 or before.op != "call_module":
            continue
        convolution = modules[str(before.target)]
        if isinstance(layer, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d):
            modules[str(before.target)] = folded = fuse_conv_bn_eval(convolution, layer)
            _replace(fused, str(before.target), folded)
            node.replace_all_uses_with(before)
            graph.erase_node(node)
        elif isinstance(layer, nn.ReLU | nn.ReLU6 | nn.SiLU | nn.Hardswish):
            layer.inplace = True
    fused.delete_all_unused_submodules()
    fused.recompile()
    return fused


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def supports_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed by the hardware; elsewhere it is emulated and many times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(probe is not None and probe() for probe in probes)


PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` takes the best that is there.

    Raises:
        OptionError: there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # some devices exist in name only
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise OptionError(f"device {name!r} is not to be had here ({reason})", "try cpu") from error
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format of a precision on a device.

    Raises:
        OptionError: no such precision.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    fast = precision == "auto" and supports_fast_bfloat16(device)
    return torch.bfloat16 if fast or precision == "bf16" else torch.float32


def precision_name(dtype: torch.dtype) -> str:
    """The precision that :func:`choose_dtype` makes this number format of."""
    return "bf16" if dtype == torch.bfloat16 else "fp32"
