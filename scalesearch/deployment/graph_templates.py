"""Export a network again by its structure: keep the graph that torch wrote, and put other weights into it.

Torch takes seconds to trace a network, yet networks that differ only in their weights and widths have the same graph.
An exported graph is kept without its weights, under the structure of its module. It is kept only if it contains every
weight of the module unchanged and under its own name, which shows that nothing in it was computed from weights.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from scalesearch.deployment.traced_graph import Template, store_template, stored_template

_KEPT = 32
"""Number of graphs that a process keeps; without weights one takes 5 kB (resnet_small) to 28 kB (resnet50)."""
_WIDTHS: Final = frozenset({"in_channels", "out_channels", "in_features", "out_features", "num_features"})
"""Attributes of layers that only repeat the shapes of their weights."""
_OF_TORCH: Final = frozenset(vars(nn.Module()))
_FREE_OF_SIZES: Final = frozenset(
    {"Add", "Clip", "Conv", "Gemm", "MaxPool", "Mul", "ReduceMean", "Relu", "Resize", "Sigmoid"}
)
"""Operators that torch writes in the same way for every width and image size. Resize is one of them only if it is given
factors, not sizes (`_is_free`). One use of Reshape is handled, too (`_flattened`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """Everything that the graph of a module depends on, as two texts, and the weights to put into a kept graph."""

    module: nn.Module
    sides: tuple[int, ...]
    """Channels, height and width of the images."""
    weights: Mapping[str, NDArray[np.generic]]
    """Parameters and buffers by name."""
    shared: str
    """The structure as text, without widths and image size: networks that differ only in these have the same text."""
    whole: str
    """`shared` with the shapes of all weights and the size of the images."""


class GraphTemplates:
    """The graphs exported last by this process, by the structure of their modules.

    Where a folder is given, graphs are stored there as well, for the processes that share it.
    """

    def __init__(self, most: int = _KEPT) -> None:
        self._most = most
        self._kept: OrderedDict[str, Template] = OrderedDict()

    def find(self, structure: Structure, folder: Path | None = None) -> onnx.ModelProto | None:
        """Return the graph of a module, made from a kept one of the same structure; None if there is none."""
        for key in (structure.shared, structure.whole):
            template = self._kept.get(key) or (stored_template(key, folder) if folder else None)
            proto = template and _filled(template, structure)
            if template and proto:
                self._put(key, template)
                return proto
        return None

    def keep(self, proto: onnx.ModelProto, structure: Structure, folder: Path | None = None) -> None:
        """Keep the graph that torch wrote of a module, if other weights may be put into it."""
        template = _template(proto, structure)
        if template is None:
            return
        shared = all(_is_free(node) or _flattens(node, template) for node in proto.graph.node)
        key = structure.shared if shared else structure.whole
        self._put(key, template)
        if folder:
            store_template(template, key, folder)

    def _put(self, key: str, template: Template) -> None:
        self._kept[key] = template
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


def structure_of(module: nn.Module, images: torch.Tensor, *, asked: str = "") -> Structure | None:
    """Return the structure of a module; None if plain attributes do not determine it, or if it depends on weights.

    Args:
        module: The module in eval mode.
        images: Images (N, C, H, W) as it takes them.
        asked: Everything else that the graph depends on: names of the outputs, version of the operator set.
    """
    lines = [asked]
    for name, layer in module.named_modules():
        own = {key: value for key, value in vars(layer).items() if key not in _OF_TORCH and key not in _WIDTHS}
        if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels:
            own["groups"] = "as many as inputs"
        hooked = layer._forward_hooks or layer._forward_pre_hooks
        if hooked or not all(map(_plain, own.values())):
            return None
        lines.append(f"{name}: {type(layer).__module__}.{type(layer).__qualname__} {sorted(own.items())!r}")
    state = module.state_dict()
    if any(tensor.dtype == torch.bfloat16 for tensor in state.values()):
        return None  # NumPy has no such type
    if any(name not in state for name, _ in module.named_buffers()):
        return None  # a buffer that is not stored may differ between two modules of one structure
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}
    # Torch leaves a bias of zeros out, and may leave out a factor of one.
    idle = {name: array.flat[0].item() for name, array in weights.items() if _is_idle(array)}
    others = [_content(array) for name, array in weights.items() if name not in idle]
    if len(set(others)) < len(others):
        return None  # torch writes equal weights once
    lines.append(repr(idle))
    sizes = [(name, array.shape, str(array.dtype)) for name, array in weights.items()]
    shared = "\n".join(lines)
    sides = tuple(images.shape[1:])
    whole = f"{shared}\n{sizes!r} {sides}"
    return Structure(module=module, sides=sides, weights=weights, shared=shared, whole=whole)


def _is_free(node: onnx.NodeProto) -> bool:
    """Tell whether torch writes the node in the same way for every width and image size."""
    with_sizes = node.op_type == "Resize" and len(node.input) > 3 and bool(node.input[3])
    return node.op_type in _FREE_OF_SIZES and not with_sizes


def _is_idle(array: NDArray[np.generic]) -> bool:
    """Tell whether all entries of an array are 0, or all are 1."""
    return array.size > 0 and array.flat[0] in (0, 1) and bool((array == array.flat[0]).all())


def _plain(value: Any) -> bool:
    """Tell whether the `repr` of a value describes it completely."""
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _content(array: NDArray[np.generic]) -> bytes:
    return hashlib.sha256(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes()).digest()


def _template(proto: onnx.ModelProto, structure: Structure) -> Template | None:
    """Return the graph without weights; None unless all are in it unchanged (only biases of zeros may be missing)."""
    weights = structure.weights
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    inside = [name for name in constants if name in weights]
    if any(not np.array_equal(constants[name], weights[name]) for name in inside):
        return None
    if any(array.any() for name, array in weights.items() if name not in constants):
        return None
    factors = {node.input[2] for node in proto.graph.node if node.op_type == "Resize" and len(node.input) == 3}
    others = [array for name, array in constants.items() if name not in weights and name not in factors]
    if any(array.dtype.kind == "f" and array.size > 1 for array in others):
        return None
    stripped = onnx.ModelProto()
    stripped.CopyFrom(proto)
    for tensor in stripped.graph.initializer:
        if tensor.name in weights:
            tensor.ClearField("raw_data")
    layers = dict(structure.module.named_modules())
    return Template(
        proto=stripped,
        weights=tuple(inside),
        flattened=tuple(_flattened(proto.graph, constants)),
        grouped={name: path for name in inside if isinstance(layers.get(path := name.rpartition(".")[0]), nn.Conv2d)},
    )


def _flattened(graph: onnx.GraphProto, constants: Mapping[str, NDArray[np.generic]]) -> Iterable[tuple[str, str]]:
    """Yield the shape constants [-1, C] of reshapes whose result only a fully connected layer of C inputs reads.

    Each is a pair: the name of the constant, and that of the layer's weight.
    """
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        readers = [reader for reader in graph.node if node.output[0] in reader.input]
        users = [each for each in graph.node if node.input[1] in each.input]
        if len(readers) == 1 and len(users) == 1 and readers[0].op_type == "Gemm":
            shape, weight = constants[node.input[1]], readers[0].input[1]
            transposed = any(attribute.name == "transB" and attribute.i for attribute in readers[0].attribute)
            if transposed and weight in constants and shape.tolist() == [-1, constants[weight].shape[1]]:
                yield node.input[1], weight


def _flattens(node: onnx.NodeProto, template: Template) -> bool:
    return node.op_type == "Reshape" and node.input[1] in dict(template.flattened)


def _filled(template: Template, structure: Structure) -> onnx.ModelProto | None:
    """Return the kept graph with these weights and the shapes that follow from them; None if they do not fit it."""
    proto = onnx.ModelProto()
    proto.CopyFrom(template.proto)
    graph, weights, layers = proto.graph, structure.weights, dict(structure.module.named_modules())
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for name in template.weights:
        tensor = numpy_helper.from_array(np.ascontiguousarray(weights[name]), name)
        if tensor.data_type != constants[name].data_type:
            return None
        constants[name].dims[:] = tensor.dims
        constants[name].raw_data = tensor.raw_data
    for name, weight in template.flattened:
        flat = np.array([-1, weights[weight].shape[1]], np.int64)
        constants[name].CopyFrom(numpy_helper.from_array(flat, name))
    for node in graph.node:
        path = template.grouped.get(node.input[1]) if node.op_type == "Conv" else None
        for attribute in node.attribute if path else ():
            if attribute.name == "group":
                attribute.i = layers[path].groups
    for dim, side in zip(graph.input[0].type.tensor_type.shape.dim[1:], structure.sides, strict=True):
        dim.dim_value = side
    return proto if _reshaped(proto, {name: weights[name].shape for name in template.weights}) else None


def _reshaped(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Write the shapes of all values that follow from the weights and the images; return whether all are known."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    bare.graph.ClearField("value_info")
    for output in bare.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        found = onnx.shape_inference.infer_shapes(bare, strict_mode=True).graph
    except onnx.shape_inference.InferenceError:
        return False
    dims = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*found.value_info, *found.output)
    }
    dims |= shapes
    for value in (*proto.graph.value_info, *proto.graph.output):
        kept = value.type.tensor_type.shape.dim
        fresh = dims.get(value.name, ())
        if len(fresh) != len(kept):
            if value.name in {tensor.name for tensor in proto.graph.initializer}:
                continue  # a constant that is not a weight: its shape is the same in every network
            return False
        for dim, side in zip(kept, fresh, strict=True):
            if dim.dim_param:
                continue
            if not side:
                return False
            dim.dim_value = side
    return True
