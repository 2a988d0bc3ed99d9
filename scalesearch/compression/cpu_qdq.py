"""Insert Q/DQ nodes where ONNX Runtime's CPU kernels want them, with ONNX Runtime's own quantizer."""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Set
from typing import Final

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData

from scalesearch.compression.calibration import Ranges
from scalesearch.compression.number_format import NumberFormat
from scalesearch.compression.qdq import WEIGHTED
from scalesearch.values.candidate import WeightScales

SEVEN_BITS: Final = NumberFormat(onnx_type=onnx.TensorProto.INT8, dtype=np.int8, largest=64.0)
"""ONNX Runtime's int8 weights with reduced range: -64..64."""
# The operators that ONNX Runtime's quantizer quantizes for its CPU kernels.
_OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "Sigmoid", "MaxPool", "GlobalAveragePool",
              "AveragePool", "Reshape", "Flatten", "Squeeze", "Concat")  # fmt: skip
_ARRANGING: Final = ("Reshape", "Flatten", "Squeeze", "Concat")
"""Operators that only move values and do not change them."""


def insert_cpu_qdq(
    proto: onnx.ModelProto,
    ranges: Ranges,
    *,
    weights: WeightScales = "per_channel",
    skip: Set[str] = frozenset(),
) -> onnx.ModelProto:
    """Return a copy of the model in ONNX Runtime's style.

    Activations are uint8, weights have 7 bits, and the operators between the layers are quantized too.

    On CPUs without VNNI, ONNX Runtime multiplies uint8 by int8 with the vpmaddubsw instruction, whose 16-bit sum of two
    products saturates (255 * 127 * 2 > 32767). For these CPUs, ONNX Runtime's guide 'Quantize ONNX models'
    (reduce_range, U8U8) advises 7-bit weights. benchmarks/int8_profiles.py shows that they are exact on such a CPU, as
    fast as 8-bit weights, and without measurable loss where nothing saturates. So every CPU gets the 7-bit file, and
    the file means the same on all of them.

    Args:
        proto: The fp32 model, shapes inferred.
        ranges: (low, high) of every activation by name.
        weights: One scale for each output channel, or one for the whole tensor.
        skip: Names of convolutions and linear layers that stay in float. Operators none of whose inputs are in 8 bits
            then stay in float too.
    """
    held = _within_bounds(proto, ranges)
    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in held.items()}
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    with _quiet():
        quantizer = QDQQuantizer(
            copy,
            per_channel=weights == "per_channel",
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            # `MinMax` only tells the quantizer that the ranges are final, whatever method they came from.
            tensors_range=TensorsData(CalibrationMethod.MinMax, data),
            nodes_to_quantize=[],
            nodes_to_exclude=sorted(_float_nodes(proto, skip) | _joined_answers(proto)),
            op_types_to_quantize=list(_OPERATORS),
            extra_options={"WeightSymmetric": True},
        )
        quantized: onnx.ModelProto = quantizer.quantize_model()
    _shield(quantized, skip)
    return quantized


def _within_bounds(proto: onnx.ModelProto, ranges: Ranges) -> Ranges:
    """Return the ranges, each of a Clip's output (ReLU6) cut to the Clip's bounds.

    ONNX Runtime's quantizer removes a Clip behind a quantized layer, since the 8 bits of its output saturate at the
    ends of their range. A learnt range may reach beyond the bounds, and what the Clip cuts off would then pass.
    """
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    held = dict(ranges)
    for node in proto.graph.node:
        if node.op_type == "Clip" and node.output[0] in held:
            low, high = held[node.output[0]]
            names = [*node.input[1:], "", ""]  # either bound may be left out
            least, most = float(constants.get(names[0], -np.inf)), float(constants.get(names[1], np.inf))
            held[node.output[0]] = (max(low, least), min(high, most))
    return held


def _float_nodes(proto: onnx.ModelProto, skip: Set[str]) -> set[str]:
    """Return the names of the skipped layers, and of every operator after them until one reads something in 8 bits.

    Otherwise an activation function or a pool between float layers would be wrapped in Q/DQ nodes that only cost time.
    """
    if not skip:
        return set()
    quantized: set[str] = set()
    float_nodes = set(skip)
    for node in proto.graph.node:
        reads = any(name in quantized for name in node.input)
        if node.op_type in _OPERATORS and node.name not in skip and (node.op_type in WEIGHTED or reads):
            quantized.update(node.output)
        else:
            float_nodes.add(node.name)
    return float_nodes


def _joined_answers(proto: onnx.ModelProto) -> set[str]:
    """Return the names of the operators that join the answers of several layers to an output of the network.

    In 8 bits, all joined answers would share one scale, although their ranges differ: next to class logits from -33 to
    38, a detector's distances from 0 to 3 had only 11 steps, and its mAP50-95 fell from 77 to 50. The network's outputs
    are float anyway, so nothing is lost by joining them in float.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    readers = Counter(name for node in proto.graph.node for name in node.input)
    found: dict[str, str] = {}
    left = [output.name for output in proto.graph.output]
    while left:
        node = makers.get(left.pop())
        if node is not None and node.op_type in _ARRANGING and all(readers[name] <= 1 for name in node.output):
            found[node.name] = node.op_type
            left += node.input
    return set(found) if "Concat" in found.values() else set()


def _shield(proto: onnx.ModelProto, skip: Set[str]) -> None:
    """Insert, in place, a Max of one input (which changes nothing) between a DequantizeLinear and each skipped layer.

    Without it ONNX Runtime (1.32, optimizer WeightBiasQuantization) finds a float weight between 8-bit activations and
    rounds it after all, with one scale for the whole tensor. A network of 65 %, some layers of which are kept in float
    because they suffer from rounding, then reaches 17 % instead of 64 %, without any message. An Identity would not
    help, since it is optimized away.
    """
    dequantized = {node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    for node in list(proto.graph.node):
        if node.name in skip and node.input[0] in dequantized:
            shielded = f"{node.name}_input"
            proto.graph.node.append(onnx.helper.make_node("Max", [node.input[0]], [shielded], name=f"{shielded}_Max"))
            node.input[0] = shielded


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantizer inside the block; it logs by the root logger and would configure it."""
    root, before = logging.getLogger(), logging.root.manager.disable
    handler = logging.NullHandler()
    root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)
