"""Two graphs are equal where nothing but numbers and names differs, and the first difference is told otherwise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_graphs import small_graph, small_model

from scalesearch.deployment.graph_structure import first_difference
from scalesearch.deployment.onnx_file import read_onnx


def test_other_weights_and_names_are_the_same_network() -> None:
    other = small_graph()
    for tensor in other.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values + 1, tensor.name))
    for node in other.graph.node:
        node.name += "_renamed"
        node.input[:] = [name if name in ("image", *(t.name for t in other.graph.initializer)) else f"x_{name}"
                         for name in node.input]  # fmt: skip
        node.output[:] = [name if name == "logits" else f"x_{name}" for name in node.output]
    onnx.helper.set_model_props(other, {"scalesearch.trial": "another/7"})
    assert first_difference(small_graph(), other) == ""


@pytest.mark.parametrize("opset", [14, 17, 19, 20])
def test_a_version_that_means_the_same_is_the_same_network(opset: int) -> None:
    """An export of an older scalesearch, in operator set 18, beside one of today's; none of its operators changed."""
    other = small_graph()
    other.opset_import[0].version = opset
    assert first_difference(small_graph(), other) == ""


def _kernel(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute[0].ints[0] = 5


def _operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].op_type = "HardSwish"


def _width(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "stem"))


def _wiring(proto: onnx.ModelProto) -> None:
    add = next(node for node in proto.graph.node if node.op_type == "Add")
    add.input[1] = "b"


def _shorter(proto: onnx.ModelProto) -> None:
    del proto.graph.node[-1]


def _opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 22


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_kernel, "Conv"),
        (_operator, "HardSwish"),
        (_width, "(8, 3, 3, 3)"),
        (_wiring, "Add"),
        (_shorter, "nodes"),
        (_opset, "ai.onnx 22"),
    ],
)
def test_any_other_change_is_told(change: Callable[[onnx.ModelProto], None], told: str) -> None:
    other = small_graph()
    change(other)
    assert told in first_difference(small_graph(), other)
    assert first_difference(other, small_graph())


def test_a_quantized_graph_is_another_one(tmp_path: Path) -> None:
    quantized = read_onnx(small_model(tmp_path, "int8").path)
    floating = small_graph()
    assert "DequantizeLinear" in first_difference(floating, quantized)
