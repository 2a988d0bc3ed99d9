"""The float weights of an ONNX file: read them, or check whether a quantized file can come from given ones."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

# Least correlation between a weight tensor and its quantized form. With 8 bits it stays far above 0.99, even with only
# one scale per tensor; for weights of another training it is far lower. Quantization-aware updates change the weights,
# so the limit is lower after them.
_LEAST_CORRELATION = 0.98
_LEAST_AFTER_QAT = 0.9
_QUANTIZED = "_quantized"
_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
_SET_BY_FLOATS: Final = frozenset({"Clip", "Resize"})
"""Operators whose inputs after the first are float constants that are no weights: bounds, and factors of the sides."""


def float_weights(proto: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Return the weights of an fp32 ONNX file by name.

    Its other tensors are left out: shapes, the bounds of ReLU6, and the factors by which maps are enlarged.
    """
    settings, read = set[str](), set[str]()
    for node in proto.graph.node:
        first = 1 if node.op_type in _SET_BY_FLOATS else len(node.input)
        read.update(node.input[:first])
        settings.update(node.input[first:])
    kept = (
        tensor
        for tensor in proto.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.name not in settings - read
    )
    return {tensor.name: onnx.numpy_helper.to_array(tensor).copy() for tensor in kept}


def is_in_float(proto: onnx.ModelProto) -> bool:
    """Tell whether no part of the file is in fewer bits than fp32, so that its weights are those of the network.

    An int8 file is like that if all of its layers were left in float, for a CPU.
    """
    halves = any(tensor.data_type in _HALF for tensor in proto.graph.initializer)
    return not halves and all(node.op_type != "DequantizeLinear" for node in proto.graph.node)


def unlike_weight(
    weights: Mapping[str, NDArray[np.float32]], deployed: onnx.ModelProto, *, after_qat: bool = False
) -> str:
    """Return the name of a weight of the deployed file that cannot come from these weights; empty if all can.

    Args:
        weights: The weights of the float network by name, each of its layer's own shape.
        deployed: The same network in fp16, bf16, int8 or fp8, as `compression.quantize` writes it.
        after_qat: Whether quantization-aware updates changed the weights before they were stored.
    """
    least = _LEAST_AFTER_QAT if after_qat else _LEAST_CORRELATION
    compared = 0
    for name, stored in _stored_weights(deployed):
        mine = weights.get(name)
        if mine is None or mine.shape != stored.shape:
            return name
        compared += 1
        if not _correlation(mine, stored) >= least:  # `not >=`, so that NaN counts as unlike
            return name
    return "" if compared else "every one: the file holds no weight that could be compared"


def _stored_weights(proto: onnx.ModelProto) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the weights of two and more dimensions by their float names, as real numbers."""
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for name, tensor in tensors.items():
        if tensor.data_type in _HALF and len(tensor.dims) > 1:
            yield name, _array(tensor)
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors and node.input[0].endswith(_QUANTIZED):
            values = _array(tensors[node.input[0]])
            if values.ndim > 1:
                yield node.input[0].removesuffix(_QUANTIZED), values * _scale(node, tensors, values.ndim)


def _scale(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto], dimensions: int) -> NDArray[np.float32]:
    """Return the quantization step of each value, by which its integer is multiplied.

    Weights are quantized symmetrically, so there is no zero point to subtract.
    """
    scale = _array(tensors[node.input[1]])
    if scale.ndim == 0:
        return scale
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    shape = [1] * dimensions
    shape[axis] = -1
    return scale.reshape(shape)


def _array(tensor: onnx.TensorProto) -> NDArray[np.float32]:
    return np.asarray(onnx.numpy_helper.to_array(tensor)).astype(np.float32)


def _correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the cosine similarity of the two arrays, taken as vectors; 1 if both are zero."""
    first, second = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    sizes = float(np.linalg.norm(first) * np.linalg.norm(second))
    if sizes == 0:
        return 1.0 if not first.any() and not second.any() else 0.0
    return float(first @ second) / sizes
