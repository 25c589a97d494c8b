"""Computations as data: the graphs in a checkpoint, checked as what strangers wrote, and as ONNX models.

A checkpoint's metadata hold them as one text in JSON, a graph for each part of the model::

    {"version": 1, "opset": 20, "graphs": {"step": {
        "inputs": [[name, type, shape]], "outputs": [[name, type, shape]],
        "nodes": [[operator, [inputs], [outputs], {attributes}]],
        "constants": {name: [type, shape, values]}, "weights": [names of tensors of the file]}}}

Graphs hold no weights of their own. They may use the operators of :data:`OPERATORS` only: none of them holds
another graph, opens a file or calls a function.
"""

import json
import math
import re
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from captioner.errors import CheckpointError
from captioner.model.config import NO_ENCODER, ModelConfig

VERSION = 1
OPSET = 20
_IR_VERSION = 9  # of the release of ONNX that brought the opset
TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9}
"""Types of numbers by their names in numpy, with ONNX's own number of each."""

_MOST_TEXT = 4_000_000  # characters
_MOST_NODES = 20_000
MOST_NUMBERS = 4096  # in a constant; weights are tensors of the file
_MOST_LISTED = 512
_MOST_RANK = 8
_MOST_SIDE = 1 << 31
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_CLASSES = 1000

_REDUCE = "keepdims:i noop_with_empty_axes:i"
_SIMPLE = (
    "Abs Add And CastLike Ceil Clip Cos Div Equal Erf Exp Expand Floor Greater GreaterOrEqual HardSwish Identity "
    "Less LessOrEqual Log MatMul Max Min Mul Neg Not Or Pow Range Reciprocal Relu Round Sigmoid Sin Slice Sqrt "
    "GlobalAveragePool Squeeze Sub Tanh Tile Unsqueeze Where"
)
OPERATORS = {
    **dict.fromkeys(_SIMPLE.split(), ""),
    "AveragePool": "auto_pad:s ceil_mode:i count_include_pad:i dilations:I kernel_shape:I pads:I strides:I",
    "BatchNormalization": "epsilon:f momentum:f training_mode:i",
    "Cast": "saturate:i to:i",
    "Concat": "axis:i",
    "Conv": "auto_pad:s dilations:I group:i kernel_shape:I pads:I strides:I",
    "CumSum": "exclusive:i reverse:i",
    "DequantizeLinear": "axis:i",
    "Einsum": "equation:s",
    "Flatten": "axis:i",
    "Gather": "axis:i",
    "GatherElements": "axis:i",
    "GatherND": "batch_dims:i",
    "Gelu": "approximate:s",
    "Gemm": "alpha:f beta:f transA:i transB:i",
    "HardSigmoid": "alpha:f beta:f",
    "LayerNormalization": "axis:i epsilon:f stash_type:i",
    "LogSoftmax": "axis:i",
    "MaxPool": "auto_pad:s ceil_mode:i dilations:I kernel_shape:I pads:I storage_order:i strides:I",
    "Mod": "fmod:i",
    "Pad": "mode:s",
    "QuantizeLinear": "axis:i",
    "ReduceL2": _REDUCE,
    "ReduceMax": _REDUCE,
    "ReduceMean": _REDUCE,
    "ReduceSum": _REDUCE,
    "Reshape": "allowzero:i",
    "ScatterND": "reduction:s",
    "Shape": "end:i start:i",
    "Softmax": "axis:i",
    "Split": "axis:i num_outputs:i",
    "TopK": "axis:i largest:i sorted:i",
    "Transpose": "perm:I",
}
"""The operators that graphs may use, with the attributes of each and their kinds: i and I for one and for several
whole numbers, f and F for other numbers, s for a text."""
_KINDS = {name: dict(item.split(":") for item in kinds.split()) for name, kinds in OPERATORS.items()}

Shape = tuple[int | str, ...]


class Port(NamedTuple):
    """An input or output of a graph; free dimensions of its shape have names."""

    name: str
    type: str
    shape: Shape


class Node(NamedTuple):
    """An operator at work: ``outputs = operator(inputs)``."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


class Constant(NamedTuple):
    """A few numbers that belong to the computation, in the order of memory."""

    type: str
    shape: tuple[int, ...]
    values: Sequence[float]


@dataclass(frozen=True)
class Graph:
    """One computation. Every input of a node is named before it.

    Attributes:
        inputs: what it is given.
        outputs: what it gives.
        nodes: its steps, in order.
        constants: numbers that belong to it.
        weights: names of the checkpoint's tensors that it uses.
    """

    inputs: Sequence[Port]
    outputs: Sequence[Port]
    nodes: Sequence[Node]
    constants: Mapping[str, Constant] = field(default_factory=dict)
    weights: Sequence[str] = ()


def write_graphs(graphs: Mapping[str, Graph]) -> str:
    """Put graphs into the text that :func:`read_graphs` reads."""
    told = {"version": VERSION, "opset": OPSET, "graphs": {name: asdict(graph) for name, graph in graphs.items()}}
    return json.dumps(told, separators=(",", ":"), allow_nan=False)


def read_graphs(text: str, config: ModelConfig, tensors: Collection[str]) -> dict[str, Graph]:
    """Read graphs, and check all of what they say.

    Args:
        text: JSON, from anyone.
        config: the model whose parts they compute.
        tensors: names of the tensors that are in its file.

    Returns:
        The graphs by their names: ``begin`` and ``step``, perhaps ``encoder`` and ``classifier``.

    Raises:
        CheckpointError: the text is of a newer format, or wrong in any way.
    """
    try:
        if len(text) > _MOST_TEXT:
            raise ValueError(f"{len(text):,} characters are too many")
        told = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
        _expect(isinstance(told, dict) and told.keys() == {"version", "opset", "graphs"}, "not a set of graphs")
        known = (told["version"], told["opset"]) == (VERSION, OPSET)
        _expect(known, "they are of another version", told["version"], told["opset"])
        _expect(isinstance(told["graphs"], dict), "not a set of graphs")
        graphs = {name: read_graph(name, data, config, tensors) for name, data in told["graphs"].items()}
        _expect({"begin", "step"} <= graphs.keys(), "one of begin and step is absent")
        return graphs
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"its graphs are damaged: {reason}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    _expect(len(found) == len(pairs), "a key stands twice in", *list(found)[:1])
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not a number")


def _expect(holds: bool, what: str, *shown: object) -> None:
    if not holds:
        raise ValueError(f"{what} {', '.join(repr(each)[:60] for each in shown)}".rstrip())


def read_graph(name: str, data: Any, config: ModelConfig, tensors: Collection[str]) -> Graph:
    """Read one graph from plain values, and check it.

    Raises:
        ValueError: something is wrong with it; other errors of Python's where a value has an odd type.
    """
    keys = {"inputs", "outputs", "nodes", "constants", "weights"}
    _expect(isinstance(data, dict) and data.keys() == keys, "not a graph:", name)
    nodes, constants = _listed(data["nodes"], _MOST_NODES), data["constants"]
    _expect(isinstance(constants, dict) and len(constants) <= _MOST_NODES, "wrong constants in", name)
    graph = Graph(
        inputs=[_port(each) for each in _listed(data["inputs"])],
        outputs=[_port(each) for each in _listed(data["outputs"])],
        nodes=[_node(each) for each in nodes],
        constants={_named(key): _constant(key, value) for key, value in constants.items()},
        weights=[_named(each) for each in _listed(data["weights"], _MOST_NODES)],
    )
    _check_ports(name, graph, config)
    _check_names(name, graph, tensors)
    return graph


def _listed(value: Any, most: int = _MOST_LISTED) -> list[Any]:
    _expect(isinstance(value, list) and len(value) <= most, "a list is wrong or too long:", value)
    return list(value)


def _named(value: Any) -> str:
    _expect(isinstance(value, str) and _NAME.fullmatch(value) is not None, "not a name:", value)
    return str(value)


def _whole(value: Any) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 3.5e38 and math.isfinite(np.float32(value))


def _port(value: Any) -> Port:
    name, kind, shape = _listed(value)
    _expect(kind in TYPES, "no such type:", kind)
    sides = tuple(side if _is_side(side) else _named(side) for side in _listed(shape, _MOST_RANK))
    return Port(_named(name), kind, sides)


def _is_side(value: Any) -> bool:
    return _whole(value) and 0 <= value < _MOST_SIDE


def _constant(name: str, value: Any) -> Constant:
    kind, shape, values = _listed(value)
    sides, numbers = _listed(shape, _MOST_RANK), _listed(values, MOST_NUMBERS)
    _expect(kind in TYPES and all(map(_is_side, sides)), "wrong type or shape of the constant", name)
    _expect(math.prod(sides) == len(numbers), "wrong number of values in the constant", name)
    least, most = (np.iinfo(kind).min, np.iinfo(kind).max) if "int" in kind else (0, 1)
    fits = {
        "float32": _finite,
        "bool": lambda number: type(number) is bool,
    }.get(kind, lambda number: _whole(number) and least <= number <= most)
    _expect(all(map(fits, numbers)), "a value of the wrong type in the constant", name)
    return Constant(kind, tuple(sides), numbers)


def _node(value: Any) -> Node:
    operator, inputs, outputs, attributes = _listed(value)
    _expect(isinstance(operator, str) and operator in OPERATORS, "no operator of ours:", operator)
    _expect(isinstance(attributes, dict), "wrong attributes of", operator)
    for name, attribute in attributes.items():
        _expect(_fits(_KINDS[operator].get(name, ""), attribute), "wrong attribute of", operator, name)
    given = tuple(_named(each) if each else "" for each in _listed(inputs))  # an input may be left out
    results = tuple(map(_named, _listed(outputs)))
    _expect(all(isinstance(each, str) for each in inputs) and len(results) > 0, "wrong inputs or outputs of", operator)
    return Node(operator, given, results, attributes)


def _fits(kind: str, value: Any) -> bool:
    if kind.isupper():
        return all(_fits(kind.lower(), each) for each in _listed(value))
    if kind == "s":
        return isinstance(value, str) and len(value) <= 100 and value.isascii()
    return _whole(value) if kind == "i" else kind == "f" and _finite(value)


def _check_names(graph_name: str, graph: Graph, tensors: Collection[str]) -> None:
    """Accept a graph in which every name is given once, before it is used."""
    known: set[str] = set()

    def add(names: Iterator[str] | Sequence[str]) -> None:
        for name in names:
            _expect(name not in known, f"{graph_name} names twice", name)
            known.add(name)

    add([port.name for port in graph.inputs])
    add(list(graph.constants))
    add(graph.weights)
    for name in graph.weights:
        _expect(name in tensors, f"{graph_name} uses a tensor that is not in the file:", name)
    computed: set[str] = set()
    for node in graph.nodes:
        for name in node.inputs:
            _expect(not name or name in known, f"{graph_name} uses a name before it is given:", name)
        add(node.outputs)
        computed.update(node.outputs)
    for port in graph.outputs:
        _expect(port.name in computed, f"{graph_name} does not compute", port.name)
    _expect(len({port.name for port in graph.outputs}) == len(graph.outputs), f"{graph_name} gives an output twice")


def _check_ports(name: str, graph: Graph, config: ModelConfig) -> None:
    """Compare inputs and outputs with what the model's configuration asks of them.

    A text stands for a dimension that is free. Of the memory of attention only the number of arrays is known.
    """
    size, parts = config.image_size, config.layers * (2 if config.cell == "lstm" else 1)
    regions = Port("regions", "float32", ("images", "regions", config.channels))
    attends = config.attention != "none"
    memory = tuple(Port(f"memory{number}", "float32", ()) for number in range(2 * attends))
    first, last = (
        Port(name, "float32", ("images", width, parts, config.hidden_size))
        for name, width in (("cell", 1), ("next", "width"))
    )
    words = Port("words", "int64", ("images", "width"))
    scores = Port("log_probs", "float32", ("images", "width", config.vocabulary_size))
    weights = (Port("attention", "float32", ("images", "width", "regions")),) * attends
    wanted: dict[str, tuple[tuple[Port, ...], tuple[Port, ...]]] = {
        "encoder": ((Port("pixels", "uint8", ("images", size, size, 3)),), (regions,)),
        "begin": ((regions,), (first, *memory)),
        "step": ((words, first._replace(shape=last.shape), *memory), (scores, last, *weights)),
        "classifier": ((regions,), (Port("probabilities", "float32", ("images", _CLASSES)),)),
    }
    _expect(name in wanted and (name != "encoder" or config.encoder != NO_ENCODER), "no graph of ours:", name)
    for ports, asked in zip((graph.inputs, graph.outputs), wanted[name], strict=True):
        _expect(len(ports) == len(asked), f"{name} has another number of inputs or outputs than its model")
        for port, other in zip(ports, asked, strict=True):
            fits = (port.name, port.type) == (other.name, other.type) and _same_shape(port.shape, other.shape)
            _expect(fits, f"{name} has an input or output that does not fit its model:", port.name)


def _same_shape(shape: Shape, wanted: Shape) -> bool:
    """Whether free dimensions are free (that of the regions may be a number), and all others as wanted."""
    if not wanted:
        return True
    if len(shape) != len(wanted):
        return False
    return all(
        have == want or (isinstance(want, str) and (isinstance(have, str) or want == "regions"))
        for have, want in zip(shape, wanted, strict=True)
    )


def to_onnx(graph: Graph, tensors: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Make an ONNX model of a graph that has been checked.

    Args:
        graph: from :func:`read_graphs`.
        tensors: those of the checkpoint, by their names.

    Returns:
        A ``ModelProto`` without the weights: it says of each that ONNX Runtime is handed it from memory.

    Raises:
        CheckpointError: a weight has numbers of a type that graphs do not use.
    """
    constants = {name: np.array(each.values, each.type).reshape(each.shape) for name, each in graph.constants.items()}
    parts = [_message(1, *_operation(node)) for node in graph.nodes]
    parts.append(_text(2)("captioner"))
    parts += [_message(5, *_tensor(name, array), _content(array)) for name, array in constants.items()]
    parts += [_message(5, *_tensor(name, tensors[name]), *_ELSEWHERE) for name in graph.weights]
    parts += [_message(11, *_value(port)) for port in graph.inputs]
    parts += [_message(12, *_value(port)) for port in graph.outputs]
    return b"".join([_number(1, _IR_VERSION), _message(7, *parts), _message(8, _text(1)(""), _number(2, OPSET))])


# What follows writes the wire format of protocol buffers, in which a message is a row of fields. The numbers of
# the fields and of the kinds are those of onnx.proto.


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers by their two's complement
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _number(field_number: int, value: int) -> bytes:
    return _varint(field_number << 3) + _varint(value)


def _float(field_number: int, value: float) -> bytes:
    return _varint(field_number << 3 | 5) + struct.pack("<f", value)


def _message(field_number: int, *content: bytes) -> bytes:
    """A field that holds a message, a text or raw bytes."""
    whole = b"".join(content)
    return b"".join((_varint(field_number << 3 | 2), _varint(len(whole)), whole))


def _text(field_number: int) -> Callable[[str], bytes]:
    return lambda text: _message(field_number, text.encode())


def _operation(node: Node) -> Iterator[bytes]:
    """A ``NodeProto``."""
    yield from map(_text(1), node.inputs)
    yield from map(_text(2), node.outputs)
    yield _text(4)(node.operator)
    yield from (_message(5, *_attribute(node.operator, *item)) for item in node.attributes.items())


def _attribute(operator: str, name: str, value: Any) -> Iterator[bytes]:
    """An ``AttributeProto``."""
    kind = _KINDS[operator][name]
    values = value if kind.isupper() else [value]
    writer, number, kind_number = _WRITERS[kind]
    yield _message(1, name.encode())
    yield from (writer(number, each) for each in values)
    yield _number(20, kind_number)


def _tensor(name: str, array: np.ndarray[Any, Any]) -> Iterator[bytes]:
    """A ``TensorProto`` but for its numbers."""
    if array.dtype.name not in TYPES:
        raise CheckpointError(f"{name} holds numbers of the type {array.dtype.name}, which no graph can use")
    yield from (_number(1, side) for side in array.shape)
    yield _number(2, TYPES[array.dtype.name])
    yield _message(8, name.encode())


def _content(array: np.ndarray[Any, Any]) -> bytes:
    """The numbers of a ``TensorProto``."""
    return _message(9, array.astype(array.dtype.newbyteorder("<")).tobytes())


def _value(port: Port) -> Iterator[bytes]:
    """A ``ValueInfoProto``."""
    sides = [_number(1, side) if isinstance(side, int) else _text(2)(side) for side in port.shape]
    shape = _message(2, *(_message(1, side) for side in sides))
    yield _message(1, port.name.encode())
    yield _message(2, _message(1, _number(1, TYPES[port.type]), shape))


_WRITERS: dict[str, tuple[Callable[[int, Any], bytes], int, int]] = {
    "f": (_float, 2, 1),
    "i": (_number, 3, 2),
    "s": (lambda field_number, text: _message(field_number, text.encode()), 4, 3),
    "F": (_float, 7, 6),
    "I": (_number, 8, 7),
}
# The numbers of a ``TensorProto`` are not in it. No file is opened: ONNX Runtime is handed all tensors from memory.
_ELSEWHERE = (_message(13, _message(1, b"location"), _message(2, b"memory")), _number(14, 1))
