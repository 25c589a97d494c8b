"""Quantise: the products of a model with whole numbers of 8 bits, which processors compute faster.

Weights get a scale for each of their rows. Scales of what flows between them follow from images that the model
captions here. An operator whose rounding alone changes a result too much stays in float32.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationMethod, QuantType, calibrate, qdq_quantizer
from safetensors.numpy import save

from captioner.decoding.filters import special_ids
from captioner.decoding.search import decode
from captioner.errors import OptionError
from captioner.files import write_atomically
from captioner.images import Pixels
from captioner.images.find import find_images
from captioner.model.config import NO_ENCODER
from captioner.runtime.graph import MOST_NUMBERS, Constant, Graph, Node, read_graphs, to_onnx, write_graphs
from captioner.runtime.onnx import OnnxModel
from captioner.weights import INT8, Header, open_checkpoint, read_header, read_tensors, tensors_digest

CALIBRATED_ON = 128
"""Images that scales are taken from; more change little."""

_DECODED = 16  # of these; each gives the decoder an input at every word
_JUDGED = 8  # inputs on which the rounding of one operator is judged
_MOST_ERROR = 6e-4  # of the variance of a result
_CUT_OFF = 1e-4  # the largest and the smallest part of what one input makes: all would pay for these with larger steps
_USUAL = 0.9  # part of the inputs whose numbers, but for these, have their place
_SEVEN_BITS = True  # of weights: pairs of larger products overflow in processors without instructions for them
_OPERATORS = ["Conv", "Gemm", "MatMul"]
_SMALL = 16  # numbers of a constant of a graph; more are a tensor of the file

Inputs = Sequence[Mapping[str, Any]]


class _Listener(OnnxModel):
    """Keeps what its graphs are given."""

    heard: dict[str, list[Mapping[str, Any]]]

    def _run(self, name: str, outputs: Sequence[str], inputs: Mapping[str, Any]) -> Any:
        self.heard.setdefault(name, []).append(inputs)
        return super()._run(name, outputs, inputs)


def calibration_images(folder: str, header: Header) -> list[Pixels]:
    """Read :data:`CALIBRATED_ON` images of a folder, or all if it has fewer; always the same, from all over it.

    Raises:
        OptionError: the folder holds no images, or the checkpoint no encoder.
        ImageError: one of them cannot be read.
    """
    if header.config.encoder == NO_ENCODER or not header.embedded:
        raise OptionError("`int8` is for checkpoints that have their encoder in them", "leave it out")
    files = list(find_images([folder]))
    if not files:
        raise OptionError(f"`calibrate` {folder}: holds no images", "name a folder of some like those to be captioned")
    places = np.linspace(0, len(files) - 1, min(CALIBRATED_ON, len(files))).round().astype(int)
    return [header.preprocessing.load(files[place]) for place in places]


def add_int8(path: Path, pixels: Sequence[Pixels]) -> None:
    """Quantise the encoder and the decoder of a checkpoint, and add the result to its file; takes minutes.

    Args:
        path: the checkpoint, written again whole or not at all. It has graphs, one of the encoder among them.
        pixels: images, see :func:`calibration_images`.

    Raises:
        CaptionerError: the graphs are damaged, or the file cannot be written.
    """
    graphs, added = _quantise(path, read_header(path), pixels)
    with open_checkpoint(path) as file:
        metadata = file.metadata()
        kept = {key: file.get_tensor(key) for key in file.keys() if not key.startswith(INT8)}  # noqa: SIM118
    tensors = kept | added
    metadata |= {"int8": graphs, "int8_of": tensors_digest(save(tensors))}
    write_atomically(path, save(tensors, metadata))


def _quantise(path: Path, header: Header, pixels: Sequence[Pixels]) -> tuple[str, dict[str, np.typing.NDArray[Any]]]:
    """All graphs of a checkpoint as text, some of them quantised, and the tensors to add to its file."""
    graphs = read_graphs(header.graphs or "", header.config, header.shapes)
    tensors = read_tensors(path, {key for graph in graphs.values() for key in graph.weights})
    model = _Listener(path, header, graphs)
    model.heard = {}
    special, options = special_ids(header.vocabulary), replace(header.decoding, tag_threshold=0.0)
    regions = np.concatenate([model.encode([image]) for image in pixels])
    decode(model, regions[:_DECODED], options, special)
    added: dict[str, np.typing.NDArray[Any]] = {}
    for name in ("encoder", "step"):
        with tempfile.TemporaryDirectory() as folder:
            found = _quantised(graphs[name], tensors, model.heard[name], Path(folder))
        graphs[name] = _as_graph(found, name, graphs[name], tensors, added)
    return write_graphs(graphs), added


def _quantised(graph: Graph, tensors: Mapping[str, Any], inputs: Inputs, folder: Path) -> Any:
    """An ONNX model that computes a graph, all but its most delicate operators with whole numbers."""
    model = onnx.load_from_string(to_onnx(graph, tensors))
    for each in model.graph.initializer:
        if each.name in graph.weights:
            each.CopyFrom(onnx.numpy_helper.from_array(tensors[each.name], each.name))
    file = folder / "float.onnx"
    _session(model, file)
    model = onnx.load(file)
    known = {each.name for each in model.graph.initializer}
    places = [node for node in model.graph.node if node.op_type in _OPERATORS and node.input[1] in known]
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
    onnx.save(model, file)
    ranges = _ranges(model, sorted({name for node in places for name in (node.input[0], node.output[0])}), inputs)
    judges = inputs[:: max(1, len(inputs) // _JUDGED)][:_JUDGED]
    wanted = _results(model, judges)
    names = [node.name for node in places]
    errors = {name: _error(_results(_rounded(file, ranges, [name]), judges), wanted) for name in names}
    return _rounded(file, ranges, [name for name, error in errors.items() if error <= _MOST_ERROR])


def _ranges(model: Any, names: Sequence[str], inputs: Inputs) -> calibrate.TensorsData:
    """Between which numbers the values of some names lie, most of them for most inputs."""
    ends = []
    given = {port.name for port in model.graph.input}
    open_model = onnx.ModelProto.FromString(model.SerializeToString())
    del open_model.graph.output[:]
    asked = [name for name in names if name not in given]
    open_model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in asked)
    session = _session(open_model)
    for each in inputs:
        found = dict(zip(asked, session.run(None, dict(each)), strict=True)) | dict(each)
        ends.append([_ends(found[name].ravel()) for name in names])
    least, most = np.quantile(ends, (1 - _USUAL, _USUAL), axis=0).astype(np.float32)
    ranges = {
        name: calibrate.TensorData(lowest=low, highest=high)
        for name, low, high in zip(names, least[:, 0], most[:, 1], strict=True)
    }
    return calibrate.TensorsData(CalibrationMethod.MinMax, ranges)


def _ends(values: np.typing.NDArray[Any]) -> tuple[float, float]:
    cut = int(values.size * _CUT_OFF)
    ordered = np.partition(values, (cut, values.size - 1 - cut))
    return float(ordered[cut]), float(ordered[-1 - cut])


def _rounded(file: Path, ranges: calibrate.TensorsData, places: Sequence[str]) -> Any:
    """The model of a file, in which some operators compute with whole numbers."""
    model = onnx.load(file)
    if not places:
        return model
    settings = {"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]}  # logits need more than 256 steps
    quantizer = qdq_quantizer.QDQQuantizer(
        model, True, _SEVEN_BITS, QuantType.QInt8, QuantType.QUInt8, ranges, list(places), [], _OPERATORS, settings
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _session(model: Any, save_to: Path | None = None) -> Any:
    """Have a model computed in one thread; ``save_to`` keeps what the simplest optimisations make of it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if save_to is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(save_to)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _results(model: Any, inputs: Inputs) -> list[Any]:
    session = _session(model)
    return [session.run(None, dict(each)) for each in inputs]


def _error(found: Sequence[Any], wanted: Sequence[Any]) -> float:
    """The largest error of the results, squared, as a part of their variance."""
    pairs = zip(zip(*found, strict=True), zip(*wanted, strict=True), strict=True)
    flat = ([np.concatenate([part.ravel() for part in side]) for side in pair] for pair in pairs)
    return max(float(((ours - theirs) ** 2).mean() / (theirs.var() + 1e-12)) for ours, theirs in flat)


def _as_graph(model: Any, name: str, graph: Graph, tensors: Mapping[str, Any], added: dict[str, Any]) -> Graph:
    """The same as data. Numbers that are not in the file yet are constants of the graph, or join the tensors added."""
    names: dict[str, str] = {"": "", **{port.name: port.name for port in (*graph.inputs, *graph.outputs)}}
    constants: dict[str, Constant] = {}
    weights: list[str] = []
    used = {name for node in model.graph.node for name in node.input}
    for each in (each for each in model.graph.initializer if each.name in used):
        array = onnx.numpy_helper.to_array(each)
        if each.name in tensors and np.array_equal(array, tensors[each.name]):
            names[each.name] = each.name
            weights.append(each.name)
        elif array.size <= _SMALL or (array.dtype.kind != "f" and array.itemsize > 4 and array.size <= MOST_NUMBERS):
            names[each.name] = f"c{len(constants)}"
            constants[names[each.name]] = Constant(array.dtype.name, array.shape, array.ravel().tolist())
        else:
            names[each.name] = f"{INT8}{name}.{len(weights)}"
            weights.append(names[each.name])
            # What stays in fractions is as exact as the weights of the file are. Scales are small, and exact.
            added[names[each.name]] = array.astype(np.float16) if array.dtype.kind == "f" and array.ndim > 1 else array
    nodes = []
    for node in model.graph.node:
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        plain = {key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()}
        ins, outs = ([names.setdefault(each, f"v{len(names)}") for each in side] for side in (node.input, node.output))
        nodes.append(Node(node.op_type, tuple(ins), tuple(outs), plain))
    return replace(graph, nodes=nodes, constants=constants, weights=weights)
