"""Running trained networks: on which device, in which numbers, fused, and several of them as one."""

import copy
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from captioner.errors import OptionError
from captioner.images import Preprocessing, Preprocessings
from captioner.model.decoder import Decoder, OnAttention, State

PRECISIONS = ("auto", "fp32", "bf16")
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
    """Copy a network in evaluation mode, so that it runs faster and computes the same.

    Batch-norm is folded into the convolution before it, and activations whose input nothing else reads
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
            parent, _, child = str(before.target).rpartition(".")
            setattr(fused.get_submodule(parent), child, folded)
            node.replace_all_uses_with(before)
            graph.erase_node(node)
        elif isinstance(layer, nn.ReLU | nn.ReLU6 | nn.SiLU | nn.Hardswish):
            layer.inplace = True
    fused.delete_all_unused_submodules()
    fused.recompile()
    return fused


def supports_fast_bfloat16(device: torch.device) -> bool:
    """Say whether bfloat16 is computed by the hardware; elsewhere it is emulated and many times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(probe is not None and probe() for probe in probes)


def choose_device(name: str) -> torch.device:
    """Find the device of a name; ``auto`` takes the best that is there.

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
        raise OptionError(f"device {name!r} is not available ({reason})", "try cpu") from error
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Find the number format of a precision on a device.

    Raises:
        OptionError: no such precision.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    fast = precision == "auto" and supports_fast_bfloat16(device)
    return torch.bfloat16 if fast or precision == "bf16" else torch.float32


def precision_name(dtype: torch.dtype) -> str:
    """Name the precision that :func:`choose_dtype` makes this number format of."""
    return "bf16" if dtype == torch.bfloat16 else "fp32"


def pack(parts: Sequence[Tensor]) -> Tensor:
    """Make one array of the regions of several encoders, so that only this module knows that there are several.

    Args:
        parts: ``(images, regions, channels)`` of each encoder.

    Returns:
        ``(images, 1, width)``, one long row for each image; that of a single encoder stays as it is.
    """
    if len(parts) == 1:
        return parts[0]
    return torch.cat([part.flatten(1) for part in parts], dim=1).unsqueeze(1)


def unpack(packed: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Take packed arrays apart, regions or pixels: from ``(images, ..., width)`` to each ``(images, *shape)``.

    Args:
        packed: from :func:`pack`, or as :class:`captioner.images.Preprocessings` makes it.
        shapes: what each part has for an image; a single part is returned as it is.
    """
    if len(shapes) == 1:
        return [packed]
    parts = torch.split(packed.flatten(1), [math.prod(shape) for shape in shapes], dim=1)
    return [part.reshape(len(part), *shape) for part, shape in zip(parts, shapes, strict=True)]


class PackedEncoder(nn.Module):
    """Encoders as one, from the pixels of images to their regions.

    Args:
        encoders: at least one.
        preprocessings: what each of them sees of an image.

    Attributes:
        preprocessing: makes the pixels.
    """

    def __init__(self, encoders: Sequence[nn.Module], preprocessings: Sequence[Preprocessing]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self._preprocessings = tuple(preprocessings)
        self._members = tuple(dict.fromkeys(preprocessings))
        single = len(self._members) == 1
        self.preprocessing: Preprocessing | Preprocessings = (
            self._members[0] if single else Preprocessings(self._members)
        )

    def forward(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        """Encode what ``preprocessing`` has made, computing in ``dtype``.

        Shapes: uint8 ``(images, *preprocessing.shape)`` -> float32 ``(images, regions, channels)`` of a
        single encoder, packed regions of several.
        """
        squares = unpack(pixels, [member.shape for member in self._members])
        regions = []
        for encoder, preprocessing in zip(self.encoders, self._preprocessings, strict=True):
            images = preprocessing.normalise(squares[self._members.index(preprocessing)])
            regions.append(encoder(images.to(dtype, memory_format=torch.channels_last)).float())
        return pack(regions)


@dataclass(frozen=True)
class EnsembleState:
    """The state of each decoder."""

    states: tuple[State, ...]

    def reorder(self, rows: Tensor) -> "EnsembleState":
        """Exchange rows of the same image."""
        return EnsembleState(tuple(state.reorder(rows) for state in self.states))

    def select(self, rows: Tensor) -> "EnsembleState":
        """Take some of the rows."""
        return EnsembleState(tuple(state.select(rows) for state in self.states))


class EnsembleDecoder(nn.Module):
    """Decoders of one vocabulary as one, with the methods of :class:`captioner.model.decoder.Decoder`.

    The probability of a word is the mean of the members' probabilities, and what it calls logits are the
    logarithms of these; of a single member they are its own logits. It is not trained.

    Args:
        members: at least one.
        encoders: for each member the number of the encoder whose regions it reads; by default all read those
            of the only one.
        shapes: ``(regions, channels)`` of each encoder, where there are several.
    """

    def __init__(
        self, members: Sequence[Decoder], encoders: Sequence[int] = (), shapes: Sequence[tuple[int, ...]] = ((),)
    ) -> None:
        super().__init__()
        self.members: Sequence[Decoder] = nn.ModuleList(members)  # type: ignore[assignment]
        self._encoders, self.shapes = encoders or [0] * len(members), shapes

    @property
    def attends(self) -> bool:
        """Whether it can be shown where it looks; several members may look at grids of their own."""
        return len(self.members) == 1 and self.members[0].attention is not None

    def initial_state(self, regions: Tensor) -> EnsembleState:
        """Make first states from packed regions."""
        parts = unpack(regions, self.shapes)
        pairs = zip(self.members, self._encoders, strict=True)
        return EnsembleState(tuple(member.initial_state(parts[encoder]) for member, encoder in pairs))

    def step(self, words: Tensor, state: EnsembleState) -> tuple[Tensor, EnsembleState]:
        """Go one word further: ``(rows,)`` previous words -> ``(rows, vocab)`` and the states after them."""
        pairs = zip(self.members, state.states, strict=True)
        logits, states = zip(*(member.step(words, own) for member, own in pairs), strict=True)
        return log_mean(logits), EnsembleState(states)

    def teacher_force(
        self, words: Tensor, lengths: Tensor, state: EnsembleState, on_attention: OnAttention | None = None
    ) -> Tensor:
        """Compute outputs of all members for known captions, side by side, in packed order.

        ``on_attention`` is called if it ``attends``.
        """
        look = on_attention if self.attends else None
        pairs = zip(self.members, state.states, strict=True)
        outputs = [member.teacher_force(words, lengths, own, on_attention=look) for member, own in pairs]
        return torch.cat(outputs, dim=-1)

    def logits(self, outputs: Tensor) -> Tensor:
        """Score all words from :meth:`teacher_force`: ``(..., all hidden)`` -> ``(..., vocab)``."""
        parts = torch.split(outputs, [member.hidden_size for member in self.members], dim=-1)
        return log_mean([m.logits(part) for m, part in zip(self.members, parts, strict=True)])


def log_mean(logits: Sequence[Tensor]) -> Tensor:
    """Compute the logarithm of the mean of ``softmax(logits)``: each ``(..., vocab)`` -> ``(..., vocab)``.

    A single one is returned as it is; its softmax is the same.
    """
    if len(logits) == 1:
        return logits[0]
    log_probs = torch.stack([each.float().log_softmax(dim=-1) for each in logits])
    return log_probs.logsumexp(dim=0) - math.log(len(logits))
