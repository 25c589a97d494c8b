#!/usr/bin/env bash
# onnxruntime 1.32.0: in a dynamically quantised model, what a row of a batch becomes depends on the other rows.
#
# Expected: MatMul computes each row of its input by itself, and so does the quantised model that quantize_dynamic makes
# of it: a row gives the same result alone and beside others, as it does in float32.
# Seen: beside a row whose numbers are 100 times as large, the result of a row is off by almost half of its size; alone
# by a hundredth. Another row of usual size changes it a little, too.
# Why: DynamicQuantizeLinear finds one scale for the whole input, not one a row, so the largest number of the batch sets
# the step of all rows. There is no option for a scale a row; static scales do not have this.
# It matters to whoever serves batches: the answer to one visitor depends on what others sent at the same moment, and
# the figures of an evaluation depend on the batch size.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cat > "$folder/check.py" <<'PYTHON'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper, save
from onnxruntime.quantization import QuantType, quantize_dynamic

folder = sys.argv[1]
random = np.random.default_rng(0)
weight = random.standard_normal((64, 32)).astype(np.float32)
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])],
    "product",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 64])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 32])],
    [numpy_helper.from_array(weight, "w")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
checker.check_model(model)
save(model, f"{folder}/float.onnx")
quantize_dynamic(f"{folder}/float.onnx", f"{folder}/int8.onnx", weight_type=QuantType.QInt8)


def first_row(kind, *rows):
    session = onnxruntime.InferenceSession(f"{folder}/{kind}.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.stack(rows)})[0][0]


def error(found, wanted):
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


row, usual = random.standard_normal((2, 64)).astype(np.float32)
large = 100 * usual
exact = row @ weight
alone, beside_usual, beside_large = (first_row("int8", row, *more) for more in ([], [usual], [large]))
in_float = max(error(first_row("float", row, *more), exact) for more in ([], [usual], [large]))
print(f"float32:                           error {in_float:.0e} in any company")
print(f"int8, alone:                       error {error(alone, exact):.4f}")
print(f"int8, beside a usual row:          error {error(beside_usual, exact):.4f}")
print(f"int8, beside a row 100 x as large: error {error(beside_large, exact):.4f}")
assert in_float < 1e-5
assert error(alone, exact) < 0.02
assert not np.array_equal(alone, beside_usual)
assert error(beside_large, exact) > 0.2
PYTHON
"$folder/venv/bin/python" "$folder/check.py" "$folder"
