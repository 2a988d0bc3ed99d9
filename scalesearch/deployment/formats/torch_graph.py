"""An fp32 ONNX graph as a torch module, and other code shared by the formats whose converters start from torch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from scalesearch.deployment.formats.base import require_one_output
from scalesearch.deployment.onnx_file import checking_session, read_onnx
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.values.candidate import Precision
from scalesearch.values.network import OnnxModel

Attributes = Mapping[str, Any]


class TorchGraph(nn.Module):
    """A torch module that runs the graph's nodes in order; the graph's tensors are its buffers."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        """Take over the nodes and tensors of the graph.

        Raises:
            StageFailed: The graph holds an operator that is not in `OPERATORS`.
        """
        super().__init__()
        unknown = sorted({node.op_type for node in proto.graph.node} - OPERATORS.keys())
        if unknown:
            reason = f"the graph holds {', '.join(unknown)}, which this converter does not know"
            raise StageFailed(stage="export", reason=reason)
        self._tensors: dict[str, str] = {}
        self._numbers: dict[str, Any] = {}
        factors = {name for node in proto.graph.node if node.op_type == "Resize" for name in node.input[1:]}
        for place, tensor in enumerate(proto.graph.initializer):
            values = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
            # These must be known while the graph is traced.
            if values.dtype == torch.int64 or values.ndim == 0 or tensor.name in factors:
                self._numbers[tensor.name] = values.tolist()
                continue
            self._tensors[tensor.name] = f"tensor_{place}"
            self.register_buffer(f"tensor_{place}", values)
        self._nodes = [
            (node.op_type, tuple(node.input), node.output[0], _attributes(node)) for node in proto.graph.node
        ]
        self._input, self._output = proto.graph.input[0].name, proto.graph.output[0].name

    def forward(self, image: Tensor) -> Tensor:
        """Compute the answers (N, ...), such as logits (N, classes), of images (N, C, H, W)."""
        values: dict[str, Any] = {self._input: image, **self._numbers}
        values.update({name: getattr(self, buffer) for name, buffer in self._tensors.items()})
        for kind, inputs, output, attributes in self._nodes:
            given = [values[name] if name else None for name in inputs]
            values[output] = OPERATORS[kind](attributes, *given)
        answers: Tensor = values[self._output]
        return answers


def float_module(model: OnnxModel, name: str) -> TorchGraph:
    """Make the torch module of an fp32 file, in eval mode.

    Raises:
        StageFailed: The file holds an operator that is not in `OPERATORS`, or several outputs.
    """
    try:
        proto = read_onnx(model.path)
        require_one_output(proto)
        return TorchGraph(proto).eval()
    except StageFailed as error:
        raise StageFailed(stage="export", reason=f"--format {name}: {error.reason}") from error


def ensure_float(precision: Precision, name: str) -> None:
    """Raise an error for every precision except fp32.

    Raises:
        ConfigError: The precision is another one: the converter would quantize again, by its own rules, and the
            resulting network was never measured.
    """
    if precision != "fp32":
        message = f"--format {name}: expected a network in fp32, came {precision}.\n"
        message += "Export an fp32 trial (`scalesearch front` shows their precision), or another format."
        raise ConfigError(message)


def ensure_same(model: OnnxModel, images: NDArray[np.float32], answers: NDArray[np.float32], name: str) -> None:
    """Raise an error if the answers differ from ONNX Runtime's by more than a thousandth of their spread.

    Args:
        model: The ONNX file to compare with.
        images: The images, of shape (N, C, H, W), that the answers are for.
        answers: Answers of shape (N, ...), such as logits (N, classes), in the other format.
        name: Name of the format, for the message.

    Raises:
        StageFailed: They differ by more.
    """
    session = checking_session(read_onnx(model.path))
    expected = np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])
    allowed = 1e-3 * float(expected.std(axis=0).mean()) + 1e-5 * float(np.abs(expected).max())
    difference = float(np.abs(expected - answers).max())
    if not difference <= allowed:  # `not <=`, so that NaN fails
        reason = f"--format {name} answers otherwise than ONNX Runtime: by {difference:.3g}, allowed are {allowed:.3g}"
        raise StageFailed(stage="export", reason=reason)


def _attributes(node: onnx.NodeProto) -> Attributes:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _padded(attributes: Attributes, image: Tensor, *, value: float = 0.0) -> tuple[Tensor, Any]:
    """Return the image (N, C, H, W) and the padding that is left to torch's operator.

    The operator can only pad both ends of a side alike; if they differ, the returned image is already padded.
    """
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if (top, left) == (bottom, right):
        return image, (top, left)
    return functional.pad(image, (left, right, top, bottom), value=value), 0


def _conv(attributes: Attributes, image: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    padded, padding = _padded(attributes, image)
    return functional.conv2d(
        padded,
        weight,
        bias,
        stride=tuple(attributes.get("strides", (1, 1))),
        padding=padding,
        dilation=tuple(attributes.get("dilations", (1, 1))),
        groups=attributes.get("group", 1),
    )


def _max_pool(attributes: Attributes, image: Tensor) -> Tensor:
    padded, padding = _padded(attributes, image, value=float("-inf"))
    kernel = tuple(attributes["kernel_shape"])
    return functional.max_pool2d(padded, kernel, stride=tuple(attributes.get("strides", (1, 1))), padding=padding)


def _gemm(attributes: Attributes, features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.linear(features, weight if attributes.get("transB") else weight.t(), bias)


def _reshape(attributes: Attributes, value: Tensor, shape: list[int]) -> Tensor:
    return value.reshape([value.shape[place] if side == 0 else side for place, side in enumerate(shape)])


def _resize(
    attributes: Attributes, image: Tensor, region: object = None, factors: Sequence[float] | None = None, *sizes: object
) -> Tensor:
    """Enlarge an image (N, C, H, W) as the necks of detectors and the decoders of segmentation networks do.

    Raises:
        StageFailed: It is resized in another way, which torch's operator might not do alike.
    """
    mode, place = (
        attributes.get(name, usual).decode()
        for name, usual in (("mode", b"nearest"), ("coordinate_transformation_mode", b"half_pixel"))
    )
    known = {
        ("nearest", "asymmetric"): attributes.get("nearest_mode") == b"floor",
        ("linear", "half_pixel"): not attributes.get("antialias", 0),
    }
    enlarging = tuple(factors or ())
    whole = enlarging[:2] == (1, 1) and all(each >= 1 and each == int(each) for each in enlarging)
    if not whole or not known.get((mode, place), False):
        reason = f"the graph holds Resize ({mode}, {place}, factors {factors}), which this converter does not know"
        raise StageFailed(stage="export", reason=reason)
    height, width = (int(side * factor) for side, factor in zip(image.shape[2:], enlarging[2:], strict=True))
    if mode == "nearest":
        return functional.interpolate(image, (height, width), mode="nearest")
    return functional.interpolate(image, (height, width), mode="bilinear", align_corners=False)


OPERATORS: Final[Mapping[str, Callable[..., Tensor]]] = {
    "Add": lambda _, one, other: one + other,
    "Clip": lambda _, value, low=None, high=None: torch.clamp(value, low, high),
    "Concat": lambda attributes, *values: torch.cat(values, attributes["axis"]),
    "Conv": _conv,
    "Flatten": lambda attributes, value: torch.flatten(value, attributes.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, value: value.mean((2, 3), keepdim=True),
    "HardSigmoid": lambda attributes, value: torch.clamp(
        attributes.get("alpha", 0.2) * value + attributes.get("beta", 0.5), 0, 1
    ),
    "HardSwish": lambda _, value: functional.hardswish(value),
    "MaxPool": _max_pool,
    "Mul": lambda _, one, other: one * other,
    "Relu": lambda _, value: functional.relu(value),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": lambda _, value: torch.sigmoid(value),
}
"""The operators in the exported networks of every task, by ONNX name, as functions (attributes, inputs) -> output."""
