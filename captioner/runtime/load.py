"""Load a model: with which runtime, on which device."""

import json
import platform
import shutil
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from captioner.errors import OptionError, needing
from captioner.model.config import NO_ENCODER, PRECISIONS, RUNTIMES
from captioner.runtime.model import Loaded
from captioner.runtime.onnx import QUANTISE, from_file
from captioner.weights import Header, find_weights, read_header


def load_model(
    weights: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    encoder: str | None = None,
    image_size: int | None = None,
    resize: str | None = None,
) -> Loaded:
    """Load one checkpoint; see :meth:`captioner.captioner.Captioner.load`."""
    if encoder is None and not (image_size is None and resize is None):
        raise OptionError("`image_size` and `resize` belong to `encoder`", "give it too, or leave them out")
    for name, value, choices in (("runtime", runtime, RUNTIMES), ("precision", precision, PRECISIONS)):
        if value not in choices:
            raise OptionError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    path = find_weights(weights)
    header = read_header(path)
    lacking = _lacking(header)
    # What ONNX Runtime does not do here.
    asked = {
        f"`device` {device}": device not in ("auto", "cpu"),
        "`precision` bf16": precision == "bf16",
        f"`encoder` {encoder}": encoder is not None,
    }
    beyond = next((option for option, is_asked in asked.items() if is_asked), "")
    if precision == "int8":
        if beyond or runtime == "torch":
            other = beyond or "`runtime` torch"
            raise OptionError(f"`precision` int8 does not go with {other}", "leave out one of them")
        if header.int8 is None and not lacking:
            lacking = f"has no graphs of whole numbers ({QUANTISE} makes them)"
        if lacking:
            raise OptionError(f"`precision` int8: {path} {lacking}")
        runtime = "onnx"
    if runtime == "onnx" and lacking:
        raise OptionError(f"`runtime` onnx: {path} {lacking}", "or choose torch")
    if runtime == "onnx" and beyond:
        raise OptionError(f"`runtime` onnx does not go with {beyond}, which is for torch", "leave out one of them")
    if runtime == "onnx" or not (runtime == "torch" or beyond or lacking or (device == "auto" and _sees_accelerator())):
        return from_file(path, header, "int8" if precision == "int8" else "fp32")
    with needing(beyond or (f"{path} {lacking}, so it" if lacking else "`runtime` torch")):
        from captioner.checkpoint import load_checkpoint, with_encoder
        from captioner.runtime.torch import from_checkpoint

    checkpoint = load_checkpoint(path)
    if encoder is not None:
        checkpoint = with_encoder(checkpoint, encoder, image_size=image_size, resize=resize)
    loaded = from_checkpoint(checkpoint, device=device, precision=precision)
    if lacking and not beyond and runtime == "auto" and loaded.model.device == "cpu":
        return replace(loaded, notice=f"{path} {lacking}, so torch computes it, which takes longer")
    return loaded


def _lacking(header: Header) -> str:
    """Say why ONNX Runtime cannot compute a checkpoint; empty if it can."""
    if header.graphs is None:
        return "has no graphs for ONNX Runtime (captioner export FILE adds them)"
    if header.config.encoder != NO_ENCODER and not header.embedded:
        return "has its encoder outside of the file"
    if header.config.encoder != NO_ENCODER and "encoder" not in _parts(header.graphs):
        return f"has no graph of {header.config.encoder}, which cannot be exported"
    return "is stored in bfloat16" if "BF16" in header.dtypes.values() else ""


def _parts(graphs: str) -> Collection[str]:
    """Name the graphs; where they are damaged, what is expected, since reading them says what is wrong."""
    try:
        return set(json.loads(graphs)["graphs"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return {"encoder"}


def _sees_accelerator() -> bool:
    """Ask whether torch may find something better than the processor; importing torch to ask it takes seconds."""
    likely = (
        any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))
        or (sys.platform == "darwin" and platform.machine() == "arm64")
        or shutil.which("nvidia-smi") is not None
    )
    if not likely:
        return False
    try:
        from captioner.runtime.torch import choose_device
    except ImportError:
        return False
    return choose_device("auto").type != "cpu"
