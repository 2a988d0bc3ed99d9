"""The version numbers in an ONNX file: the lowest ones with the same meaning, for old runtimes on devices.

A runtime refuses a file whose IR version or operator set it does not know yet, even if the file uses nothing new in
them. Most operators are years older than the operator set that torch's exporter writes.

The same operators may still run differently in another operator set. ONNX Runtime 1.32, for example, has no fp16 Relu
for CPUs. In operator set 18 it uses Max instead, the standard's definition of Relu, and cannot fuse that with a
convolution; in 14 it computes convolution and Relu as one. So the versions are lowered before a file is measured,
never afterwards.
"""

from collections.abc import Iterator
from typing import Final

import onnx

_OURS: Final = ("", "ai.onnx")
"""Names of the ONNX standard's own domain."""
_OLDEST: Final = 13
"""The first operator set with a scale for each channel; no runtime in use is older."""
_MORE_TYPES: Final = frozenset({("QuantizeLinear", 19), ("DequantizeLinear", 19)})
"""Definitions that only added types (fp8, half-precision scales): with other types they mean the same as those of
`_OLDEST`."""
_EIGHT_BITS: Final = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


def opset_of(proto: onnx.ModelProto) -> int:
    """Return the version of the standard operator set that the model is written in."""
    return int(next(entry.version for entry in proto.opset_import if entry.domain in _OURS))


def lower_versions(proto: onnx.ModelProto) -> None:
    """Lower the model's versions, in place.

    It gets the lowest operator set in which each operator means what it means now, and the lowest IR version. The graph
    itself stays as it is. A model with functions of its own is left alone, and so is one with unknown operators.
    """
    if not any(entry.domain in _OURS for entry in proto.opset_import):
        return
    lowest = lowest_opset(proto)
    used = {node.domain for node in _nodes(proto.graph)}
    kept = [entry for entry in proto.opset_import if entry.domain in _OURS or entry.domain in used or proto.functions]
    for entry in kept:
        entry.version = lowest if entry.domain in _OURS else entry.version
    kept = [onnx.helper.make_opsetid(entry.domain, entry.version) for entry in kept]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    if not proto.functions:
        needed = onnx.helper.find_min_ir_version_for(kept, ignore_unknown=True)
        proto.ir_version = min(proto.ir_version, needed)


def lowest_opset(proto: onnx.ModelProto) -> int:
    """Return the lowest version of the standard operator set in which the model means the same.

    If the model's own version is older, that one is returned. An operator's definition is valid from the version that
    introduced it until the next one that changed it, so the newest definition among the operators decides.
    """
    current = opset_of(proto)
    if proto.functions:
        return current
    floats = {tensor.name for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    eights = {tensor.name for tensor in proto.graph.initializer if tensor.data_type in _EIGHT_BITS}
    since = [_OLDEST]
    for node in _nodes(proto.graph):
        if node.domain in _OURS:
            try:
                version = onnx.defs.get_schema(node.op_type, current).since_version
            except onnx.defs.SchemaError:
                return current
            plain = len(node.input) == 3 and node.input[1] in floats and node.input[2] in eights
            since.append(_OLDEST if plain and (node.op_type, version) in _MORE_TYPES else version)
    return min(current, max(since))


def at_opset(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return a copy of the model at that version of the operator set, or at its own if that is already newer.

    Only versions that change an operator of the model need ONNX's converter.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    if opset_of(proto) >= opset:
        return copy
    names = {node.op_type for node in _nodes(proto.graph) if node.domain in _OURS}
    reached = opset_of(proto)
    while reached < opset and _mean_the_same(names, reached, reached + 1):
        reached += 1
    entry = next(entry for entry in copy.opset_import if entry.domain in _OURS)
    entry.version = reached
    copy.ir_version = max(copy.ir_version, onnx.helper.find_min_ir_version_for([entry]))
    if reached == opset:
        return copy
    converted: onnx.ModelProto = onnx.version_converter.convert_version(copy, opset)
    entry = next(entry for entry in converted.opset_import if entry.domain in _OURS)
    converted.ir_version = max(converted.ir_version, onnx.helper.find_min_ir_version_for([entry]))
    return converted


def _mean_the_same(names: set[str], opset: int, other: int) -> bool:
    definitions = [{(name, onnx.defs.get_schema(name, version).since_version) for name in names}
                   for version in (opset, other)]  # fmt: skip
    return definitions[0] == definitions[1]


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield every node, including those of branches and loop bodies."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _nodes(inner)
