from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.errors import CheckpointError
from captioner.model.config import ModelConfig
from captioner.runtime import graph
from captioner.runtime.graph import Constant, Graph, Node, Port, read_graphs, to_onnx, write_graphs

CONFIG = ModelConfig("none", 1, channels=4, vocabulary_size=6, cell="rnn", hidden_size=3, embedding_size=3)
TENSORS = {
    "decoder.initial.weight": np.arange(12, dtype=np.float32).reshape(4, 3),
    "decoder.output.weight": np.arange(18, dtype=np.float32).reshape(3, 6),
}
BEGIN = Graph(
    inputs=[Port("regions", "float32", ("images", "regions", 4))],
    outputs=[Port("cell", "float32", ("images", 1, 1, 3))],
    nodes=[
        Node("ReduceMean", ("regions", "axes"), ("v0",), {"keepdims": 0}),
        Node("MatMul", ("v0", "decoder.initial.weight"), ("v1",), {}),
        Node("Unsqueeze", ("v1", "places"), ("cell",), {}),
    ],
    constants={"axes": Constant("int64", (1,), [1]), "places": Constant("int64", (2,), [1, 2])},
    weights=["decoder.initial.weight"],
)
STEP = Graph(
    inputs=[Port("words", "int64", ("images", "width")), Port("cell", "float32", ("images", "width", 1, 3))],
    outputs=[
        Port("log_probs", "float32", ("images", "width", 6)),
        Port("next", "float32", ("images", "width", 1, 3)),
    ],
    nodes=[
        Node("Clip", ("cell", "", "most"), ("next",), {}),
        Node("Squeeze", ("next", "axis"), ("v0",), {}),
        Node("MatMul", ("v0", "decoder.output.weight"), ("v1",), {}),
        Node("LogSoftmax", ("v1",), ("log_probs",), {"axis": -1}),
    ],
    constants={"most": Constant("float32", (), [0.5]), "axis": Constant("int64", (1,), [2])},
    weights=["decoder.output.weight"],
)
TEXT = write_graphs({"begin": BEGIN, "step": STEP})


def assert_refused(text: str, match: str = "") -> None:
    with pytest.raises(CheckpointError, match=f"^its graphs are damaged: .*{match}") as caught:
        read_graphs(text, CONFIG, TENSORS)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def changed(change: str, value: object) -> str:
    """The text with one place, such as ``graphs.step.nodes.0.0``, set to a value, or left out."""
    told = json.loads(TEXT)
    *way, last = (int(part) if part.lstrip("-").isdigit() else part for part in change.split("/"))
    place = told
    for part in way:
        place = place[part]
    place[last] = value
    return json.dumps(told)


def test_graphs_are_read_as_they_were_written() -> None:
    assert read_graphs(TEXT, CONFIG, TENSORS) == {"begin": BEGIN, "step": STEP}


def test_onnx_runtime_computes_a_graph() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")

    def run(graph: Graph, **inputs: Any) -> Any:
        options = onnxruntime.SessionOptions()
        held = [onnxruntime.OrtValue.ortvalue_from_numpy(TENSORS[name]) for name in graph.weights]
        options.add_external_initializers(list(graph.weights), held)
        session = onnxruntime.InferenceSession(to_onnx(graph, TENSORS), options, providers=["CPUExecutionProvider"])
        return session.run(None, inputs)

    regions = np.random.default_rng(0).standard_normal((2, 3, 4), dtype=np.float32)
    (cell,) = run(BEGIN, regions=regions)
    np.testing.assert_allclose(cell[:, 0, 0], regions.mean(axis=1) @ TENSORS["decoder.initial.weight"], rtol=1e-4)
    log_probs, after = run(STEP, words=np.zeros((2, 1), np.int64), cell=cell)
    np.testing.assert_array_equal(after, np.minimum(cell, 0.5))
    scores = after[:, :, 0] @ TENSORS["decoder.output.weight"]
    wanted = scores - np.log(np.exp(scores - scores.max(-1, keepdims=True)).sum(-1, keepdims=True))
    np.testing.assert_allclose(log_probs, wanted - scores.max(-1, keepdims=True), rtol=1e-3, atol=1e-3)


def test_the_bytes_are_what_onnx_reads() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(to_onnx(STEP, TENSORS))
    assert (model.ir_version, model.opset_import[0].domain, model.opset_import[0].version) == (9, "", graph.OPSET)
    assert [node.op_type for node in model.graph.node] == ["Clip", "Squeeze", "MatMul", "LogSoftmax"]
    assert list(model.graph.node[0].input) == ["cell", "", "most"]
    assert onnx.helper.get_node_attr_value(model.graph.node[3], "axis") == -1
    shapes = [
        [side.dim_param or side.dim_value for side in port.type.tensor_type.shape.dim] for port in model.graph.input
    ]
    assert shapes == [["images", "width"], ["images", "width", 1, 3]]
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    assert onnx.numpy_helper.to_array(held["most"]) == np.float32(0.5)
    assert list(held["decoder.output.weight"].dims) == [3, 6]
    assert held["decoder.output.weight"].data_type == onnx.TensorProto.FLOAT
    for name, array in TENSORS.items():
        if name in held:
            held[name].CopyFrom(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(model, full_check=True)


def test_all_kinds_of_attributes_are_what_onnx_reads() -> None:
    onnx = pytest.importorskip("onnx")
    attributes = {"auto_pad": "NOTSET", "group": 3, "pads": [0, 1, -1, 1 << 40], "strides": []}
    nodes = [Node("Conv", ("x", "w"), ("y",), attributes), Node("Gemm", ("y", "y"), ("z",), {"alpha": 0.25})]
    model = onnx.load_from_string(to_onnx(Graph([], [], nodes), {}))
    told = {each.name: onnx.helper.get_attribute_value(each) for node in model.graph.node for each in node.attribute}
    assert told == {**attributes, "auto_pad": b"NOTSET", "alpha": 0.25}


@pytest.mark.parametrize("name", sorted(graph.OPERATORS))
def test_every_operator_and_attribute_is_one_of_onnx(name: str) -> None:
    onnx = pytest.importorskip("onnx")
    schema = onnx.defs.get_schema(name, graph.OPSET)
    kinds = {"i": "INT", "I": "INTS", "f": "FLOAT", "F": "FLOATS", "s": "STRING"}
    for item in graph.OPERATORS[name].split():
        attribute, kind = item.split(":")
        assert schema.attributes[attribute].type.name == kinds[kind]
    assert not any(each.type.name in ("GRAPH", "GRAPHS") for each in schema.attributes.values())


@pytest.mark.parametrize(
    ("change", "value", "match"),
    [
        ("version", 2, "another version"),
        ("opset", 21, "another version"),
        ("more", 1, "not a set of graphs"),
        ("graphs", [], "not a set of graphs"),
        ("graphs/other", json.loads(TEXT)["graphs"]["step"], "no graph of ours"),
        ("graphs/encoder", json.loads(TEXT)["graphs"]["step"], "no graph of ours"),
        ("graphs/step/functions", [], "not a graph"),
        ("graphs/step/nodes/0/0", "Loop", "no operator of ours"),
        ("graphs/step/nodes/0/0", "com.microsoft.Gelu", "no operator of ours"),
        ("graphs/step/nodes/0/0", ["Clip"], "no operator of ours"),
        ("graphs/step/nodes/3/3", {"body": {}}, "wrong attribute"),
        ("graphs/step/nodes/3/3", {"axis": 1.5}, "wrong attribute"),
        ("graphs/step/nodes/3/3", {"axis": True}, "wrong attribute"),
        ("graphs/step/nodes/3/3", {"axis": 1 << 63}, "wrong attribute"),
        ("graphs/step/nodes/3/1", ["later"], "before it is given"),
        ("graphs/step/nodes/3/1", [5], "not a name"),
        ("graphs/step/nodes/3/1", [0], "wrong inputs"),
        ("graphs/step/nodes/3/2", [], "wrong inputs"),
        ("graphs/step/nodes/3/2", ["v0"], "twice"),
        ("graphs/step/nodes/3/2", ["cell"], "twice"),
        ("graphs/step/nodes/3/2", ["v2"], "does not compute"),
        ("graphs/step/nodes/3/2", ["../../x"], "not a name"),
        ("graphs/step/weights", ["decoder.unknown.weight"], "not in the file"),
        ("graphs/step/weights", ["decoder.output.weight"] * 2, "twice"),
        ("graphs/step/constants/most/0", "float16", "wrong type"),
        ("graphs/step/constants/most/1", [2], "number of values"),
        ("graphs/step/constants/most/2", ["x"], "wrong type"),
        ("graphs/step/constants/most/2", [1e39], "wrong type"),
        ("graphs/step/constants/axis/2", [0.5], "wrong type"),
        ("graphs/step/constants/axis", ["int64", [4097], [0] * 4097], "too long"),
        ("graphs/step/constants/axis", ["int64", [0] * 9, []], "too long"),
        ("graphs/step/inputs/1/2", ["images", "width", 2, 3], "does not fit its model"),
        ("graphs/step/inputs/1/2", ["images", 5, 1, 3], "does not fit its model"),
        ("graphs/step/inputs/0/1", "int32", "does not fit its model"),
        ("graphs/step/outputs/0/0", "scores", "does not fit its model"),
        ("graphs/step/inputs", [], "another number of inputs"),
        ("graphs/step/nodes", [["Clip", ["cell"], ["x"], {}]] * 20_001, "too long"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(change: str, value: object, match: str) -> None:
    assert_refused(changed(change, value), match)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "nonsense", "[" * 100_000, '{"x":' * 100_000, " " * 4_000_001, "NaN",
        TEXT.replace("0.5", "NaN"), TEXT.replace("0.5", "Infinity"), TEXT.replace("0.5", "1e999"),
        TEXT.replace("0.5", "9" * 400), TEXT.replace("0.5", "9" * 5000),
        TEXT.replace('"version"', '"version":1,"version"'), TEXT.replace("[2]", "[1" + "0" * 30 + "]"),
    ],
    ids=range(15),
)  # fmt: skip
def test_a_text_that_is_no_graph_is_refused(text: str) -> None:
    assert_refused(text)


def test_begin_and_step_are_needed() -> None:
    assert_refused(write_graphs({"step": STEP}), "is absent")


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, each in items for place in places(each, (*way, key)))]


@settings(max_examples=300)
@given(data=st.data())
def test_any_value_at_any_place_is_refused_or_computed_or_refused_by_onnx_runtime(data: st.DataObject) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    told = copy.deepcopy(json.loads(TEXT))
    ways = places(told)[1:]
    for _ in range(data.draw(st.integers(1, 2))):
        *way, last = data.draw(st.sampled_from(ways))
        place = told
        try:
            for part in way:
                place = place[part]
            other: Any = told
            for part in data.draw(st.sampled_from(ways)):
                other = other[part]
            place[last] = copy.deepcopy(data.draw(st.just(other) | ODD))
        except (LookupError, TypeError):
            continue
    try:
        graphs = read_graphs(json.dumps(told), CONFIG, TENSORS)
    except CheckpointError:
        return
    for each in graphs.values():
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        held = [onnxruntime.OrtValue.ortvalue_from_numpy(TENSORS[name]) for name in each.weights]
        options.add_external_initializers(list(each.weights), held)
        model = to_onnx(each, TENSORS)
        with suppress(Exception):  # its errors have no base; what must not happen is that the process ends
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            inputs = {"regions": np.ones((2, 3, 4)), "words": np.ones((2, 1)), "cell": np.ones((2, 1, 1, 3))}
            kinds = {port.name: port.type for port in each.inputs}
            session.run(None, {name: inputs[name].astype(kind) for name, kind in kinds.items()})
