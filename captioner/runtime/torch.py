"""Models that torch computes: on which device, in which numbers, and fused."""

import copy
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from captioner.checkpoint import Checkpoint, encoder_digest
from captioner.errors import OptionError
from captioner.images import Pixels, Preprocessing
from captioner.model import decoder
from captioner.model.config import PRECISIONS
from captioner.model.encoder import Encoder, output_shape
from captioner.runtime.model import Floats, Ints, Loaded, State, in_blocks

_STARTING = threading.Lock()  # over the number of threads that torch gives to new threads
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
    if precision == "int8":
        raise OptionError("`precision` int8 is for ONNX Runtime", "torch computes fp32 and bf16")
    fast = precision == "auto" and supports_fast_bfloat16(device)
    return torch.bfloat16 if fast or precision == "bf16" else torch.float32


def precision_name(dtype: torch.dtype) -> str:
    """Name the precision that :func:`choose_dtype` makes this number format of."""
    return "bf16" if dtype == torch.bfloat16 else "fp32"


_BLOCK = 16  # images


class DecoderModel:
    """A decoder alone, as :mod:`captioner.decoding` asks for it; the base of :class:`TorchModel`.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: decoder.Decoder) -> None:
        self.decoder = network
        self.attends = network.attention is not None

    @torch.inference_mode()
    def initial_state(self, regions: Floats | torch.Tensor) -> State:
        """See :class:`captioner.runtime.model.Model`; takes tensors too."""
        weight = self.decoder.initial.weight
        regions = torch.as_tensor(regions).to(weight.device, weight.dtype)
        state = self.decoder.initial_state(regions[in_blocks(np.arange(len(regions)), _BLOCK)])
        return State(state.cell.unsqueeze(1), state.memory or (), _BLOCK)

    def step(self, words: Ints, state: State) -> tuple[Floats, State]:
        """See :class:`captioner.runtime.model.Model`."""
        log_probs, _, state = self._advance(words, state)
        return log_probs, state

    def look(self, words: Ints, state: State) -> tuple[Floats, Floats, State]:
        """See :class:`captioner.runtime.model.Model`."""
        log_probs, weights, state = self._advance(words, state)
        assert weights is not None  # it attends
        return log_probs, weights.cpu().numpy(), state

    @torch.inference_mode()
    def _advance(self, words: Ints, state: State) -> tuple[Floats, torch.Tensor | None, State]:
        images, width = words.shape
        device = state.cell.device
        ids = torch.from_numpy(state.padded(words)).to(device).flatten()
        memory = (state.memory[0], state.memory[1]) if state.memory else None
        logits, weights, after = self.decoder.look(ids, decoder.State(state.cell.flatten(0, 1), memory))
        log_probs = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(dim=-1)
        found: Floats = log_probs.view(-1, width, log_probs.shape[-1])[:images].cpu().numpy()
        shown = None if weights is None else weights.view(-1, width, weights.shape[-1])[:images]
        return found, shown, State(after.cell.view(state.cell.shape), state.memory, state.block)


class TorchEncoder:
    """An encoder alone, for features that are kept; see :class:`captioner.runtime.model.Model`.

    Args:
        encoder: the encoder, in evaluation mode; it is not changed, nor may others change it meanwhile.
        preprocessing: what it sees.
        device: where to encode.
        dtype: precision of encoding.
    """

    def __init__(
        self, encoder: Encoder, preprocessing: Preprocessing, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.preprocessing, self.dtype = preprocessing, dtype
        self.encoder_name, self.encoder_digest = encoder.name, encoder_digest(encoder)
        self.numbers = str(dtype)
        self._given, self._device = encoder, device

    @property
    def shape(self) -> tuple[int, int]:
        """``(regions, channels)`` of an image."""
        return output_shape(self._given, self.preprocessing.size)

    @cached_property
    def network(self) -> nn.Module:
        """The encoder, made fast; seldom needed where most images have been encoded before."""
        # Fused before it is rounded: folding batch-norm in bfloat16 would cost accuracy.
        fused: nn.Module = fuse(self._given).to(self._device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return fused

    @torch.inference_mode()
    def encode(self, pixels: Sequence[Pixels]) -> Floats:
        """See :class:`captioner.runtime.model.Model`."""
        # On a processor one after the other: it takes no longer, and an image's regions do not depend on the others.
        size = 1 if self._device.type == "cpu" else len(pixels)
        parts = [self._encode(np.stack(pixels[start : start + size])) for start in range(0, len(pixels), size)]
        return np.concatenate(parts)

    def _encode(self, pixels: Pixels) -> Floats:
        images = self.preprocessing.normalise(torch.from_numpy(pixels).to(self._device))
        regions: Floats = self.network(images.to(self.dtype, memory_format=torch.channels_last)).float().cpu().numpy()
        return regions


class TorchModel(TorchEncoder, DecoderModel):
    """A checkpoint that torch computes; see :class:`captioner.runtime.model.Model`.

    Args:
        checkpoint: its encoder is copied, its decoder is not.
        device: ``auto`` (cuda, mps or cpu, what is there) or the name of a torch device.
        precision: of the encoder.

    Raises:
        OptionError: the device or the precision is not available.
    """

    runtime = "torch"

    def __init__(self, checkpoint: Checkpoint, *, device: str = "auto", precision: str = "auto") -> None:
        where, network = choose_device(device), checkpoint.network
        # benchmarks/gpu.py --device cpu: in bfloat16 about one caption in seven comes out differently.
        dtype = choose_dtype("fp32" if precision == "auto" else precision, where)
        TorchEncoder.__init__(self, network.encoder.eval(), checkpoint.preprocessing, device=where, dtype=dtype)
        DecoderModel.__init__(self, network.decoder.eval().to(where))
        self.device, self.precision, self.channels = str(where), precision_name(dtype), network.config.channels
        # An accelerator needs many images at once; a processor is as fast with one after the other.
        self.seen_together = 1 if where.type == "cpu" else _BLOCK
        classifier = checkpoint.classifier
        self._classifier = None if classifier is None else classifier.to(where)

    @property
    def threads(self) -> int:
        """See :class:`captioner.runtime.model.Model`; torch may be told another number at any time."""
        return torch.get_num_threads() if self._device.type == "cpu" else 1

    @torch.inference_mode()
    def classify(self, regions: Floats) -> Floats:
        """See :class:`captioner.runtime.model.Model`."""
        assert self._classifier is not None
        mean = torch.from_numpy(regions).to(self._device).mean(dim=1)
        mean = mean[in_blocks(np.arange(len(mean)), _BLOCK)]
        found: Floats = self._classifier(mean).softmax(dim=1)[: len(regions)].cpu().numpy()
        return found

    def begin_thread(self) -> None:
        """See :class:`captioner.runtime.model.Model`: the thread computes alone."""
        with _STARTING:
            before = torch.get_num_threads()
            torch.set_num_threads(1)
            # That held for this thread, and for all threads to come. Others are to have as many as before.
            restoring = threading.Thread(target=torch.set_num_threads, args=(before,))
            restoring.start()
            restoring.join()

    def rest(self) -> None:
        """See :class:`captioner.runtime.model.Model`."""


def from_checkpoint(checkpoint: Checkpoint, *, device: str = "auto", precision: str = "auto") -> Loaded:
    """Make a checkpoint ready; see :class:`TorchModel`."""
    return Loaded(
        model=TorchModel(checkpoint, device=device, precision=precision),
        config=checkpoint.network.config,
        vocabulary=checkpoint.vocabulary,
        decoding=checkpoint.decoding,
        training=checkpoint.training,
        digest=checkpoint.digest,
        calibration=checkpoint.calibration,
        classifies=checkpoint.classifier is not None,
    )
