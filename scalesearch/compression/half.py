"""Convert a whole fp32 graph to half precision (fp16 or bf16), with a cast at its input and one at its output."""

from collections.abc import Mapping
from typing import Final, Literal

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import DTypeLike

from scalesearch.deployment.onnx_versions import at_opset
from scalesearch.errors import StageFailed

HalfName = Literal["fp16", "bf16"]
HALF_SUFFIX: Final = "_half"
"""Inside the graph, the input in half precision has the input's name with this suffix."""

_TYPES: Final[Mapping[HalfName, tuple[int, DTypeLike, float, int]]] = {
    # ONNX type, numpy type, largest value, first opset in which Conv and GlobalAveragePool take it
    "fp16": (onnx.TensorProto.FLOAT16, np.float16, float(np.finfo(np.float16).max), 1),
    "bf16": (onnx.TensorProto.BFLOAT16, ml_dtypes.bfloat16, 3.3895e38, 22),
}
# Inputs that ONNX wants in float32 whatever the data's type is, as (operator, index of the input).
_ALWAYS_FLOAT: Final = frozenset({("Resize", 1), ("Resize", 2)})


def to_half(proto: onnx.ModelProto, name: HalfName) -> onnx.ModelProto:
    """Return a copy of the model that computes in fp16 or bf16; its input and output stay float32.

    Every weight and activation changes its type, so that no node mixes two types: TensorRT builds strongly typed
    networks and refuses an Add whose two inputs have different types.

    Raises:
        StageFailed: A weight is too large for the format (an overflowing activation shows only when the file runs), or
            the graph already has Q/DQ nodes or casts.
    """
    kind, dtype, largest, opset = _TYPES[name]
    half = at_opset(proto, opset)
    graph = half.graph
    if any(node.op_type in ("Cast", "QuantizeLinear", "DequantizeLinear") for node in graph.node):
        raise StageFailed(stage="quantize", reason=f"{name} wants a plain fp32 graph, got one with casts or Q/DQ nodes")
    kept = {node.input[place] for node in graph.node for op, place in _ALWAYS_FLOAT
            if node.op_type == op and len(node.input) > place}  # fmt: skip
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.name not in kept:
            values = onnx.numpy_helper.to_array(tensor)
            reached = float(np.abs(values).max(initial=0.0))
            if not reached <= largest:
                reason = f"{name} holds up to {largest:.0f}, but weight {tensor.name} reaches {reached:.3g}"
                raise StageFailed(stage="quantize", reason=reason)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(dtype), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:  # the value of a Constant or ConstantOfShape
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == onnx.TensorProto.FLOAT:
                attribute.t.CopyFrom(
                    onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(attribute.t).astype(dtype))
                )
    del graph.value_info[:]
    _cast_inputs(graph, kind)
    _cast_outputs(graph)
    return half


def _cast_inputs(graph: onnx.GraphProto, kind: int) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    for place, value in enumerate(value for value in graph.input if value.name not in constants):
        inside = f"{value.name}{HALF_SUFFIX}"
        for node in graph.node:
            node.input[:] = [inside if name == value.name else name for name in node.input]
        cast = onnx.helper.make_node("Cast", [value.name], [inside], name=f"Cast_in_{place}", to=kind)
        graph.node.insert(place, cast)


def _cast_outputs(graph: onnx.GraphProto) -> None:
    for place, value in enumerate(graph.output):
        inside = f"{value.name}{HALF_SUFFIX}"
        for node in graph.node:
            node.output[:] = [inside if name == value.name else name for name in node.output]
            node.input[:] = [inside if name == value.name else name for name in node.input]
        cast = onnx.helper.make_node(
            "Cast", [inside], [value.name], name=f"Cast_out_{place}", to=onnx.TensorProto.FLOAT
        )
        graph.node.append(cast)
