"""Bias correction: change the biases so that they cancel the mean shift caused by rounding the weights."""

from collections import Counter
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from scalesearch.compression.calibration import activations
from scalesearch.compression.number_format import NumberFormat, encode_weight
from scalesearch.compression.qdq import output_axis, weighted_nodes
from scalesearch.deployment.onnx_file import checking_session
from scalesearch.values.candidate import WeightScales

_WITH_BIAS = ("Conv", "Gemm")


def correct_biases(
    proto: onnx.ModelProto,
    images: NDArray[np.float32],
    number: NumberFormat,
    *,
    weights: WeightScales = "per_channel",
    skip: Set[str] = frozenset(),
) -> onnx.ModelProto:
    """Return a copy of the float model whose biases compensate the mean error of rounding its weights.

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2,
    equations 16 and 17: rounding a weight by e shifts the layer's output by E[e x] = e E[x]. The shift is subtracted
    from the bias. E[x] is measured on images. A layer is linear, so the mean of its outputs equals its output for the
    mean input, also at the borders. E[x] is taken from the float network: the corrected layers before a layer give the
    same inputs on average.

    Args:
        proto: The fp32 model, shapes inferred.
        images: (N, C, H, W), normalised as in training.
        number: The number format that the weights will be rounded to.
        weights: One scale for each output channel of a weight, or one for the whole tensor.
        skip: Names of layers that stay in float and are not corrected. A MatMul has no bias and stays as it is, too.

    Returns:
        The corrected copy.
    """
    corrected = onnx.ModelProto()
    corrected.CopyFrom(proto)
    constants = {tensor.name: tensor for tensor in corrected.graph.initializer}
    chosen = [node for node in weighted_nodes(corrected) if node.name not in skip and node.op_type in _WITH_BIAS]
    if not chosen:
        return corrected
    means = _mean_inputs(proto, images, {node.input[0] for node in chosen})
    for node in chosen:
        values = onnx.numpy_helper.to_array(constants[node.input[1]])
        axis = output_axis(node, values.ndim)
        stored, scale = encode_weight(values, axis if weights == "per_channel" else None, number)
        shape = [-1 if place == axis else 1 for place in range(values.ndim)] if scale.ndim else []
        error = stored.astype(np.float32) * scale.reshape(shape).astype(np.float32) - values
        _subtract(corrected.graph, node, _mean_output(node, means[node.input[0]], error))
    return corrected


def _mean_inputs(proto: onnx.ModelProto, images: NDArray[np.float32], names: Set[str]) -> dict[str, NDArray[Any]]:
    """Return the mean of each named activation over its first axis, which is kept with length 1.

    These are the images, or several rows of each: tokens, or parts of an image that go through one layer together.
    """
    sums: dict[str, NDArray[Any]] = {}
    rows = Counter[str]()
    for batch in activations(proto, images, sorted(names)):
        for name, values in batch.items():
            sums[name] = sums.get(name, 0) + values.sum(axis=0, keepdims=True, dtype=np.float64)
            rows[name] += len(values)
    return {name: total / rows[name] for name, total in sums.items()}


def _mean_output(node: onnx.NodeProto, mean_input: NDArray[Any], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return, for each output channel, the layer's mean output for its mean input with these weights and no bias."""
    alone = onnx.helper.make_node(node.op_type, ["x", "w"], ["y"])
    alone.attribute.extend(node.attribute)
    unknown = [None] * mean_input.ndim
    graph = onnx.helper.make_graph(
        [alone],
        "layer",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(mean_input.shape))],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, unknown)],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    (output,) = checking_session(model).run(None, {"x": mean_input.astype(np.float32)})
    shift: NDArray[np.float32] = output.mean(axis=(0, *range(2, output.ndim)))
    return shift


def _subtract(graph: onnx.GraphProto, node: onnx.NodeProto, shift: NDArray[np.float32]) -> None:
    """Subtract the shift from the node's bias, in place.

    The node gets a new bias constant of its own, since another layer may read the old one, or the same weight.
    """
    constants: Mapping[str, onnx.TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
    bias = np.zeros_like(shift)
    if len(node.input) > 2 and node.input[2]:
        bias = onnx.numpy_helper.to_array(constants[node.input[2]])
    name = f"{node.input[1]}_corrected_bias"
    if name in constants:
        name = f"{node.name}_corrected_bias"
    graph.initializer.append(onnx.numpy_helper.from_array((bias - shift).astype(np.float32), name))
    del node.input[2:]
    node.input.append(name)
