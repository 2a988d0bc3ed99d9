"""Insert Q/DQ nodes where NVIDIA's compilers want them: only at the inputs of convolutions and linear layers.

TensorRT fuses a convolution with what follows it (ReLU, the residual Add) as long as nothing stands between them, so
no output is quantized. At a residual Add, only the branch that does not come from the convolution is quantized, and is
then read in 8 bits (TensorRT developer guide, "Working with Quantized Types": Q/DQ placement recommendations). ONNX
Runtime's quantizer is not used here, since it places its nodes for its own kernels: after every output too.
"""

from collections.abc import Mapping, Set
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray

from scalesearch.compression.number_format import FORMATS, FormatName, NumberFormat, encode_weight
from scalesearch.deployment.onnx_versions import at_opset
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import WeightScales

WEIGHTED: Final = frozenset({"Conv", "Gemm", "MatMul"})
_RESHAPING: Final = frozenset({"Flatten", "Reshape", "Squeeze"})
_OUTPUT_PREFIX: Final = "output of "
_FIRST_OPSET: Final = 13
"""The first opset with a scale for each channel."""
_FIRST_HALF_OPSET: Final = 19
"""The first opset with fp8 and with half-precision scales."""


def weighted_nodes(proto: onnx.ModelProto) -> tuple[onnx.NodeProto, ...]:
    """Return the convolutions and linear layers with constant weights, in the graph's order."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    return tuple(node for node in proto.graph.node if node.op_type in WEIGHTED and node.input[1] in constants)


def given_ranges(
    proto: onnx.ModelProto,
    ranges: Mapping[str, tuple[float, float]],
    weights: Mapping[str, NDArray[np.float32]] | None = None,
) -> dict[str, tuple[float, float]]:
    """Turn ranges that are named by weights into ranges by the names of activations.

    Args:
        proto: The float model.
        ranges: (low, high) by key. The key W stands for the input of the layer with the weight W, the key
            `output_of(W)` for its output.
        weights: The network's weights by name, by which a layer is found whose weight the file does not name so: torch
            exports a linear layer on more than two dimensions with a transposed weight of another name. A layer that
            is not in the file with these numbers keeps its calibrated range.

    Returns:
        (low, high) by the names of the activations in `proto`.

    Raises:
        StageFailed: No layer has that weight, and it is not among `weights`.
    """
    weights = weights or {}
    layers = layers_by_weight(proto, {key.removeprefix(_OUTPUT_PREFIX) for key in ranges}, weights)
    producers = {output: node for node in proto.graph.node for output in node.output}
    given: dict[str, tuple[float, float]] = {}
    for key, bounds in ranges.items():
        weight = key.removeprefix(_OUTPUT_PREFIX)
        if weight not in layers:
            if weight in weights:
                continue
            raise StageFailed(stage="quantize", reason=f"a range is given for {key}, but no layer has that weight")
        name = _output(proto, layers[weight]) if key != weight else layers[weight].input[0]
        given[name] = bounds
        # ONNX Runtime's quantizer gives the output of a reshaping node the scale of its input.
        while name in producers and producers[name].op_type in _RESHAPING:
            name = producers[name].input[0]
            given[name] = bounds
    return given


def layers_by_weight(
    proto: onnx.ModelProto, names: Set[str], weights: Mapping[str, NDArray[np.float32]]
) -> dict[str, onnx.NodeProto]:
    """Return the convolutions and linear layers of the file by the names of their weights in the network.

    Args:
        proto: The float model.
        names: Names to find. One that the file does not have is looked for by its numbers, as in `given_ranges`.
        weights: The network's weights by name.
    """
    layers = {node.input[1]: node for node in weighted_nodes(proto)}
    return layers | _renamed(proto, names - layers.keys(), weights)


def _renamed(
    proto: onnx.ModelProto, names: Set[str], weights: Mapping[str, NDArray[np.float32]]
) -> dict[str, onnx.NodeProto]:
    """Return, by the names of these weights, the layers that hold the same numbers, or the same transposed."""
    found: dict[str, onnx.NodeProto] = {}
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    left = [node for node in weighted_nodes(proto) if node.input[1] not in weights] if names else []
    for name in sorted(names & weights.keys()):
        for node in left:
            values, weight = onnx.numpy_helper.to_array(constants[node.input[1]]), weights[name]
            if np.array_equal(values, weight) or (values.ndim == 2 and np.array_equal(values, weight.T)):
                found[name] = node
                left.remove(node)
                break
    return found


def _output(proto: onnx.ModelProto, layer: onnx.NodeProto) -> str:
    """Return the name of the layer's output; the bias of a MatMul is added by a node of its own."""
    constants, name = {tensor.name for tensor in proto.graph.initializer}, str(layer.output[0])
    readers = [node for node in proto.graph.node if name in node.input] if layer.op_type == "MatMul" else []
    if len(readers) == 1 and readers[0].op_type == "Add" and constants & {*readers[0].input}:
        name = str(readers[0].output[0])
    return name


def output_of(weight: str) -> str:
    """Return the key of `given_ranges` for the output of the layer with this weight."""
    return f"{_OUTPUT_PREFIX}{weight}"


def insert_qdq(
    proto: onnx.ModelProto,
    ranges: Mapping[str, tuple[float, float]],
    name: FormatName,
    *,
    weights: WeightScales = "per_channel",
    skip: Set[str] = frozenset(),
) -> onnx.ModelProto:
    """Return a copy of the model with its convolutions and linear layers in int8 or fp8.

    Weights are stored in 8 bits, followed by a DequantizeLinear; biases stay as they are.

    Args:
        proto: The model in fp32 or fp16; the scales get the type of its data.
        ranges: (low, high) of the activations, by their names in `proto`.
        name: The number format.
        weights: One scale for each output channel, or one for the whole tensor.
        skip: Names of nodes that are left as they are.

    Raises:
        StageFailed: A range is missing, or an activation or weight is not finite.
    """
    halves = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in proto.graph.initializer)
    opset = _FIRST_HALF_OPSET if halves or name == "fp8" else _FIRST_OPSET
    insertion = _Insertion(at_opset(proto, opset), FORMATS[name], ranges)
    chosen = [node for node in weighted_nodes(insertion.proto) if node.name not in skip]
    for node in chosen:
        insertion.quantize_input(node, 0)
        insertion.quantize_weight(node, weights)
    insertion.quantize_residuals({output for node in chosen for output in node.output})
    return insertion.finished()


class _Insertion:
    """A graph that is being changed: every activation gets one Q/DQ pair, however many layers read it.

    A weight that several layers read is rounded once, too, unless they count their outputs along unlike axes.
    """

    def __init__(self, proto: onnx.ModelProto, number: NumberFormat, ranges: Mapping[str, tuple[float, float]]) -> None:
        self.proto = proto
        self._number = number
        self._ranges = ranges
        self._weights = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._pairs: dict[str, str] = {}
        self._rounded: dict[tuple[str, int | None], str] = {}
        self._made: list[onnx.NodeProto] = []

    def quantize_input(self, node: onnx.NodeProto, place: int) -> None:
        node.input[place] = self._pair(node.input[place])

    def quantize_weight(self, node: onnx.NodeProto, weights: WeightScales) -> None:
        tensor = self._weights[node.input[1]]
        axis = output_axis(node, len(tensor.dims)) if weights == "per_channel" else None
        if (tensor.name, axis) not in self._rounded:
            self._rounded[tensor.name, axis] = self._rounded_weight(tensor, axis)
        node.input[1] = self._rounded[tensor.name, axis]

    def _rounded_weight(self, tensor: onnx.TensorProto, axis: int | None) -> str:
        """Add the weight in 8 bits, with one scale for each place along the axis; return the name of its float value.

        With None as `axis`, there is one scale.
        """
        values = onnx.numpy_helper.to_array(tensor)
        if not np.isfinite(values.astype(np.float32)).all():
            raise StageFailed(stage="quantize", reason=f"weight {tensor.name} is not finite")
        stored, scale = encode_weight(values, axis, self._number)
        second = f"_along_{axis}" if any(name == tensor.name for name, _ in self._rounded) else ""
        names = [f"{tensor.name}_{part}{second}" for part in ("quantized", "scale", "zero_point")]
        zeros = np.zeros(scale.shape, dtype=self._number.dtype)
        for name, array in zip(names, (stored, scale, zeros), strict=True):
            self._constant(name, array)
        dequantized = f"{tensor.name}_dequantized{second}"
        self._node("DequantizeLinear", names, dequantized, axis=axis)
        return dequantized

    def quantize_residuals(self, heavy: Set[str]) -> None:
        """Quantize one input of each residual Add that a quantized layer feeds directly.

        If exactly one input comes directly from a layer of `heavy`, the other one is quantized; if both do, one of
        them.
        """
        for node in self.proto.graph.node:
            if node.op_type != "Add" or any(name in self._weights for name in node.input):
                continue
            light = [place for place, name in enumerate(node.input) if name not in heavy]
            if len(light) == 1:
                self.quantize_input(node, light[0])
            elif not light:
                # Two convolutions meet, and one of them is fused with the Add: if possible not the one whose output the
                # next block reads in 8 bits anyway (an identity shortcut around linear bottlenecks).
                self.quantize_input(node, 0 if node.input[0] in self._pairs else 1)

    def finished(self) -> onnx.ModelProto:
        graph = self.proto.graph
        graph.node.extend(self._made)
        used = {name for node in graph.node for name in node.input}
        for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
            graph.initializer.remove(tensor)
        del graph.value_info[:]
        return self.proto

    def _pair(self, name: str) -> str:
        if name not in self._pairs:
            if name not in self._ranges:
                raise StageFailed(stage="quantize", reason=f"no range was measured for activation {name}")
            reach = max(abs(bound) for bound in self._ranges[name])
            if not np.isfinite(reach):
                raise StageFailed(stage="quantize", reason=f"activation {name} is not finite")
            scale, zero = f"{name}_scale", f"{name}_zero_point"
            self._constant(scale, np.asarray(self._number.scale(reach), dtype=self._float_type()))
            self._constant(zero, np.zeros((), dtype=self._number.dtype))
            self._node("QuantizeLinear", [name, scale, zero], f"{name}_quantized")
            self._node("DequantizeLinear", [f"{name}_quantized", scale, zero], f"{name}_dequantized")
            self._pairs[name] = f"{name}_dequantized"
        return self._pairs[name]

    def _float_type(self) -> DTypeLike:
        kinds = {tensor.data_type for tensor in self._weights.values()}
        return np.float16 if onnx.TensorProto.FLOAT16 in kinds else np.float32

    def _constant(self, name: str, array: NDArray[Any]) -> None:
        self.proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))

    def _node(self, kind: str, inputs: list[str], output: str, axis: int | None = None) -> None:
        name = f"{output}_{kind}"
        self._made.append(onnx.helper.make_node(kind, inputs, [output], name=name, axis=axis))


def output_axis(node: onnx.NodeProto, dimensions: int) -> int:
    """Return the axis of the output channels in a layer's weight, which has the given number of dimensions."""
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else dimensions - 1
