"""Weights of a graph get other names where these are free."""

import numpy as np
import onnx
from onnx import helper

from scalesearch.deployment.graph_edits import rename_weights


def test_weights_are_renamed_with_their_readers_where_the_name_is_free() -> None:
    weights = [onnx.numpy_helper.from_array(np.full(2, place, np.float32), name) for place, name in enumerate("abc")]
    nodes = [helper.make_node("Add", ["x", "a"], ["y"]), helper.make_node("Add", ["y", "b"], ["z"])]
    x, z = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xz")
    graph = helper.make_graph(nodes, "g", [x], [z], weights)

    rename_weights(graph, {"a": "fc.weight", "b": "c", "absent": "other"})

    assert [tensor.name for tensor in graph.initializer] == ["fc.weight", "b", "c"]
    assert [list(node.input) for node in graph.node] == [["x", "fc.weight"], ["y", "b"]]
