"""From torch to graphs: what a network computes, as the data of :mod:`captioner.runtime.graph`.

Graphs depend on the architecture only: of weights they hold the names, never a value or what follows from one.
"""

import logging
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from captioner.checkpoint import TIED, Checkpoint, load_checkpoint
from captioner.errors import CheckpointError
from captioner.images import Preprocessing
from captioner.model.config import NO_ENCODER, ModelConfig
from captioner.model.decoder import State
from captioner.model.encoder import CLASSES, CaptionNetwork
from captioner.runtime import graph
from captioner.runtime.model import Model
from captioner.runtime.onnx import from_file
from captioner.runtime.torch import TorchModel
from captioner.weights import read_header

_IMAGES, _WIDTH, _REGIONS = 2, 3, 5  # they stand for dimensions that are free: all differ, and none is 1
_EMBEDDING = "decoder.embedding.weight"
_MOST_DIFFERENCE = 1e-3  # float32 differs in the sixth digit
_MOST_FOLDED = graph.MOST_NUMBERS * 8  # bytes

Sides = tuple[str, ...]
"""Names of the free dimensions of an array; empty for those that are not."""


class Exported(NamedTuple):
    """The graphs of an architecture.

    Attributes:
        text: the graphs, for the metadata of a checkpoint.
        problem: why there is no graph of the encoder; empty if there is one, or no encoder.
    """

    text: str
    problem: str


class _Part(NamedTuple):
    """A computation, with an example and the free dimensions of each input, and those of each output."""

    inputs: dict[str, tuple[Tensor, Sides]]
    outputs: dict[str, Sides]
    compute: Callable[..., Tensor | tuple[Tensor, ...]]


class _Whole(nn.Module):
    """All weights under their names in a checkpoint, and one computation with them."""

    def __init__(self, network: CaptionNetwork, classifier: nn.Linear | None) -> None:
        super().__init__()
        self.config = network.config
        self.encoder, self.decoder, self.classifier = network.encoder, network.decoder, classifier
        self.compute: Callable[..., Any] = tuple

    def forward(self, *inputs: Tensor) -> Any:
        return self.compute(*inputs)


@lru_cache(maxsize=16)
def export_graphs(
    config: ModelConfig, preprocessing: Preprocessing, *, encoder: bool = True, classifier: bool = False
) -> Exported:
    """Make the graphs of an architecture; takes seconds, once in a process.

    Args:
        config: the architecture.
        preprocessing: makes the pixels that its encoder sees.
        encoder: whether the encoder's weights are in the file.
        classifier: whether a classifier of the mean region is.

    Raises:
        CheckpointError: the packages that this needs are not installed, or the decoder cannot be exported.
    """
    try:
        import onnxscript  # noqa: F401 (with all that it needs)
    except ImportError as error:
        what = f"graphs for ONNX Runtime cannot be exported: {error.name or error} is not installed"
        raise CheckpointError(what, "run: pip install 'captioner[train]'") from error
    with torch.random.fork_rng(devices=[]):  # a training goes on as if nothing had been drawn
        network = CaptionNetwork(config).eval()
        layer = nn.Linear(config.channels, CLASSES) if classifier else None
    whole = _Whole(network, layer).requires_grad_(False)
    weights = {name: name for name in whole.state_dict()}
    if config.tie_embeddings:
        weights[TIED] = _EMBEDDING
    parts = dict(_of_decoder(network))
    if encoder and config.encoder != NO_ENCODER:
        parts["encoder"] = _of_encoder(network, preprocessing)
    if layer is not None:
        parts["classifier"] = _of_classifier(network, layer)
    graphs: dict[str, graph.Graph] = {}
    problem = ""
    for name, part in parts.items():
        found, reason = _attempt(name, whole, part, weights)
        if found is not None:
            graphs[name] = found
        elif name == "encoder":
            problem = reason
        else:
            raise CheckpointError(f"the graph {name} cannot be exported: {reason}")
    return Exported(graph.write_graphs(graphs), problem)


def graphs_of(checkpoint: Checkpoint, say: Callable[[str], None], *, encoder: bool = True) -> str | None:
    """Make the graphs of a checkpoint that is about to be written; a failure is told, and no reason not to write it.

    Args:
        checkpoint: it is not changed.
        say: told in one line what cannot be exported.
        encoder: whether the encoder's weights go into the file.
    """
    known = (checkpoint.network.config, checkpoint.preprocessing)
    try:
        found = export_graphs(*known, encoder=encoder, classifier=checkpoint.classifier is not None)
    except CheckpointError as error:
        say(f"{error}; until then the checkpoint needs torch")
        return None
    if found.problem:
        say(f"the encoder cannot be exported, so images need torch: {found.problem}")
    return found.text


def renewed_graphs(path: Path) -> tuple[Exported, float]:
    """Export the graphs of a checkpoint's file, and let ONNX Runtime compute by them what torch does.

    Returns:
        The graphs, and the largest difference of a number computed from random input: probabilities, and regions as
        parts of the largest.

    Raises:
        CaptionerError: the checkpoint cannot be loaded or exported, or ONNX Runtime computes something else.
    """
    checkpoint, header = load_checkpoint(path), read_header(path)
    if "BF16" in header.dtypes.values():
        raise CheckpointError(f"{path}: is stored in bfloat16, which only torch reads", "save it in float16")
    classifies = checkpoint.classifier is not None
    found = export_graphs(header.config, header.preprocessing, encoder=header.embedded, classifier=classifies)
    models = from_file(path, replace(header, graphs=found.text)).model, TorchModel(checkpoint, device="cpu")
    sees = "encoder" in graph.read_graphs(found.text, header.config, header.shapes)
    difference = max(_differences(*models, sees=sees, classifies=classifies))
    if not difference <= _MOST_DIFFERENCE:
        raise CheckpointError(f"{path}: ONNX Runtime computes other numbers than torch, by {difference:.2g}")
    return found, difference


def _differences(ours: Model, torchs: Model, *, sees: bool, classifies: bool) -> Iterator[float]:
    random = np.random.default_rng(0)
    regions = random.standard_normal((_IMAGES, _REGIONS, ours.channels), dtype=np.float32)
    if sees:
        pixels = random.integers(0, 256, (_IMAGES, *ours.preprocessing.shape), dtype=np.uint8)
        seen, regions = ours.encode(list(pixels)), torchs.encode(list(pixels))
        yield float(abs(seen - regions).max() / abs(regions).max())
    if classifies:
        yield float(abs(ours.classify(regions) - torchs.classify(regions)).max())
    states = [model.initial_state(regions) for model in (ours, torchs)]
    for width in (1, _WIDTH):
        words = random.integers(0, 2, (_IMAGES, width))
        states = [state.reorder(np.zeros_like(words)) for state in states]
        (found, ours_next), (wanted, torchs_next) = ours.step(words, states[0]), torchs.step(words, states[1])
        states = [ours_next, torchs_next]
        yield float(abs(np.exp(found) - np.exp(wanted)).max())


def _attempt(name: str, whole: _Whole, part: _Part, weights: dict[str, str]) -> tuple[graph.Graph | None, str]:
    """The graph of a part, or why there is none."""
    whole.compute = part.compute
    try:
        with _quiet(), torch.no_grad():
            told = _export(whole, part, weights, strict=name != "encoder")
        return graph.read_graph(name, told, whole.config, weights.values()), ""
    except Exception as error:  # whatever the exporter stumbles over
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _of_encoder(network: CaptionNetwork, preprocessing: Preprocessing) -> _Part:
    pixels = torch.zeros((_IMAGES, *preprocessing.shape), dtype=torch.uint8)
    inputs: dict[str, tuple[Tensor, Sides]] = {"pixels": (pixels, ("images", "", "", ""))}
    return _Part(inputs, {"regions": ("images", "", "")}, lambda given: network.encoder(preprocessing.normalise(given)))


def _of_classifier(network: CaptionNetwork, classifier: nn.Linear) -> _Part:
    inputs = {"regions": _example_regions(network)}
    return _Part(
        inputs, {"probabilities": ("images", "")}, lambda regions: classifier(regions.mean(dim=1)).softmax(dim=-1)
    )


def _example_regions(network: CaptionNetwork) -> tuple[Tensor, Sides]:
    return torch.zeros(_IMAGES, _REGIONS, network.config.channels), ("images", "regions", "")


def _of_decoder(network: CaptionNetwork) -> Iterator[tuple[str, _Part]]:
    decoder = network.decoder

    def begin(regions: Tensor) -> tuple[Tensor, ...]:
        state = decoder.initial_state(regions)
        return state.cell.unsqueeze(1), *(state.memory or ())

    def step(words: Tensor, cell: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        state = State(cell.flatten(0, 1), memory or None)  # type: ignore[arg-type]
        logits, weights, state = decoder.look(words.flatten(), state)
        found = (logits.log_softmax(dim=-1), state.cell, *(() if weights is None else (weights,)))
        return tuple(each.unflatten(0, words.shape) for each in found)

    regions = _example_regions(network)
    with torch.no_grad():
        cell, *memory = begin(regions[0])
    placed = ("images", "places", "") if decoder.reads_context else ("images", "", "places", "")
    kept = {f"memory{number}": (each, placed) for number, each in enumerate(memory)}
    yield "begin", _Part({"regions": regions}, {"cell": ("images", "", "", ""), **dict.fromkeys(kept, placed)}, begin)
    inputs = {
        "words": (torch.zeros(_IMAGES, _WIDTH, dtype=torch.long), ("images", "width")),
        "cell": (cell.repeat_interleave(_WIDTH, dim=1), ("images", "width", "", "")),
    }
    outputs = {"log_probs": ("images", "width", ""), "next": ("images", "width", "", "")}
    seen = {"attention": ("images", "width", "regions")} if memory else {}
    yield "step", _Part(inputs | kept, outputs | seen, step)


def _export(whole: _Whole, part: _Part, weights: dict[str, str], *, strict: bool) -> dict[str, Any]:
    """A graph as plain values, with the weights under the names that ``weights`` gives them.

    ``strict`` also follows the ``len`` of a free dimension, which is but a number otherwise; not every encoder can
    be followed so.
    """
    examples = tuple(example for example, _ in part.inputs.values())
    free = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, side in enumerate(sides) if side} for _, sides in part.inputs.values()
    )
    traced = torch.export.export(whole, examples, dynamic_shapes=(free,), strict=strict)
    program = torch.onnx.export(
        traced,
        dynamo=True,
        optimize=False,
        verbose=False,
        opset_version=graph.OPSET,
        input_names=list(part.inputs),
        output_names=list(part.outputs),
    )
    assert program is not None  # as it is not told to write a file
    _simplify(program.model, weights)
    found = whole(*examples)
    results = zip(part.outputs, found if isinstance(found, tuple) else (found,), strict=True)
    return {
        "inputs": [_port(name, example, sides) for name, (example, sides) in part.inputs.items()],
        "outputs": [_port(name, result, part.outputs[name]) for name, result in results],
        **_plain(program.model.graph, part, weights),
    }


def _port(name: str, example: Tensor, sides: Sides) -> list[Any]:
    shape = [side or length for side, length in zip(sides, example.shape, strict=True)]
    return [name, str(example.dtype).removeprefix("torch."), shape]


def _simplify(model: Any, weights: Collection[str]) -> None:
    """Compute what depends on no input and no weight, and bring padding into the convolutions behind it.

    ONNX Runtime merges convolutions with what follows them only where no padding stands before, and no bias of
    zeros in them. All else it does by itself.
    """
    from onnxscript import optimizer, rewriter
    from onnxscript.rewriter.rules.common import _fuse_pad_into_conv, _remove_optional_bias

    graph = model.graph
    for name in [name for name in graph.initializers if name in weights]:
        # As an input its value is unknown, so that nothing is computed of it.
        value = graph.initializers.pop(name)
        value.const_value = None
        graph.inputs.append(value)
    rules: tuple[Any, ...] = (_remove_optional_bias.rules, _fuse_pad_into_conv.rules, ())
    for each in rules:
        optimizer.fold_constants(
            model, onnx_shape_inference=False, input_size_limit=_MOST_FOLDED, output_size_limit=_MOST_FOLDED
        )
        if each:
            rewriter.rewrite(model, pattern_rewrite_rules=each)
    optimizer.remove_unused_nodes(model)


def _plain(model: Any, part: _Part, weights: dict[str, str]) -> dict[str, Any]:
    """Nodes, constants and weights of a graph as plain values, with short names."""
    # Behind the inputs stand the weights.
    names: dict[str, str] = {value.name: name for value, name in zip(model.inputs, part.inputs, strict=False)}
    copies = []
    for value, name in zip(model.outputs, part.outputs, strict=True):
        if names.setdefault(value.name, name) != name:  # it is an input, or another output too
            copies.append(["Identity", [names[value.name]], [name], {}])
    constants: dict[str, list[Any]] = {}
    nodes: list[list[Any]] = []

    def named(value: Any) -> str:
        if value is None:
            return ""
        return weights.get(value.name) or names.setdefault(value.name, f"v{len(names)}")

    def constant(name: str, array: Any) -> None:
        constants[name] = [array.dtype.name, list(array.shape), array.ravel().tolist()]

    for value in model.initializers.values():
        constant(named(value), value.const_value.numpy())
    for node in model:
        operator, inputs, outputs = node.op_type, list(map(named, node.inputs)), list(map(named, node.outputs))
        attributes = {
            each.name: list(each.value) if isinstance(each.value, tuple) else each.value
            for each in node.attributes.values()
        }
        if operator == "Constant":
            constant(outputs[0], node.outputs[0].const_value.numpy())
            continue
        if operator == "ConstantOfShape":  # its value is an attribute of a kind of its own
            filling: Any = attributes.pop("value", None)
            inputs.insert(0, f"{outputs[0]}.value")
            operator = "Expand"
            constant(inputs[0], np.zeros((), np.float32) if filling is None else filling.numpy().reshape(()))
        nodes.append([operator, inputs, outputs, attributes])
    nodes += copies
    used = {name for node in nodes for name in node[1]}
    return {
        "nodes": nodes,
        "constants": {name: each for name, each in constants.items() if name in used},
        "weights": sorted(used & set(weights.values())),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the block, the exporter's remarks on its own work are not shown."""
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
