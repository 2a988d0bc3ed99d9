"""The structure of an ONNX graph without its weights, to tell whether a rebuilt network is the same one."""

from collections.abc import Iterator

import onnx

from scalesearch.deployment.onnx_versions import lowest_opset

Line = tuple[str, ...]


def structure(proto: onnx.ModelProto) -> tuple[Line, ...]:
    """Describe everything of a graph except its numbers, names and operator set, one line for each part.

    Inputs, outputs and tensors are described by type and shape; nodes by operator, attributes and what they are
    connected to.
    """
    graph = proto.graph
    numbers: dict[str, str] = {}
    lines: list[Line] = []
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for place, value in enumerate(values):
            numbers.setdefault(value.name, f"{kind} {place}")
            lines.append((kind, _type_text(value.type.tensor_type)))
    tensors = {tensor.name: f"tensor {tensor.data_type} {tuple(tensor.dims)}" for tensor in graph.initializer}
    for place, node in enumerate(graph.node):
        # A tensor is described by its shape where it is used, so the order in which a file lists its tensors does not
        # matter.
        wired = [tensors.get(name) or numbers.get(name, "none") for name in node.input]
        for port, name in enumerate(node.output):
            numbers.setdefault(name, f"node {place}.{port}")
        given = [numbers[name] for name in node.output]
        lines.append((f"node {place}", node.op_type, node.domain, *wired, "->", *given, *sorted(_attributes(node))))
    return tuple(lines)


def first_difference(one: onnx.ModelProto, other: onnx.ModelProto) -> str:
    """Describe in one line where the structures of two graphs first differ; empty if they are the same."""
    mine, theirs = structure(one), structure(other)
    for line, against in zip(mine, theirs, strict=False):
        if line != against:
            return f"{' '.join(line)} is {' '.join(against)} in the other"
    if len(mine) != len(theirs):
        return f"{len(mine) - len(theirs):+d} nodes, inputs or outputs"
    # Equal graphs may be written in different versions of the operator set that have the same meaning.
    opset, against_opset = lowest_opset(one), lowest_opset(other)
    return f"opset ai.onnx {opset} is ai.onnx {against_opset} in the other" if opset != against_opset else ""


def _type_text(kind: onnx.TypeProto.Tensor) -> str:
    dims = [str(dim.dim_value) if dim.HasField("dim_value") else "any" for dim in kind.shape.dim]
    return f"{kind.elem_type} ({', '.join(dims)})"


def _attributes(node: onnx.NodeProto) -> Iterator[str]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR:  # a constant, whose numbers count as weights
            yield f"{attribute.name}=tensor {attribute.t.data_type} {tuple(attribute.t.dims)}"
        else:
            yield f"{attribute.name}={onnx.helper.get_attribute_value(attribute)!r}"
