"""A small residual network as an ONNX file, written by hand so that no test pays for torch's exporter."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

from scalesearch.deployment.onnx_file import write_onnx
from scalesearch.tasks.classification.pieces import quantize
from scalesearch.values.candidate import Precision, Quantization
from scalesearch.values.network import OnnxModel
from scalesearch.values.target import QuantizationProfile

CLASSES = 4
IMAGES = np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32)
_BODY = """{
    first = Conv<pads = [1, 1, 1, 1], kernel_shape = [3, 3]>(image, stem, stem_bias)
    a = Relu(first)
    wide = Conv<group = 16, pads = [1, 1, 1, 1], kernel_shape = [3, 3]>(a, depthwise, depthwise_bias)
    b = Relu(wide)
    second = Conv<kernel_shape = [1, 1]>(b, pointwise, pointwise_bias)
    sum = Add(second, a)
    c = Relu(sum)
    pooled = GlobalAveragePool(c)
    features = Flatten(pooled)
    logits = Gemm<transB = 1>(features, classifier, classifier_bias)
}"""
_SHAPES = {
    "stem": (16, 3, 3, 3),
    "depthwise": (16, 1, 3, 3),
    "pointwise": (16, 16, 1, 1),
    "classifier": (CLASSES, 16),
}
WEIGHTED = len(_SHAPES)
"""Convolutions and linear layers of the graph."""


def small_graph() -> onnx.ModelProto:
    """fp32, dynamic batch, seeded weights; each node is named after its operator and place."""
    text = (
        '<ir_version: 10, opset_import: ["": 18]> small '
        f"(float[batch, 3, 8, 8] image) => (float[batch, {CLASSES}] logits) {_BODY}"
    )
    proto = parser.parse_model(text)
    random = np.random.default_rng(1)
    for name, shape in _SHAPES.items():
        weights = random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        proto.graph.initializer.append(numpy_helper.from_array(weights.astype(np.float32), name))
        bias = random.normal(size=shape[0]).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(bias, f"{name}_bias"))
    for place, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{place}"
    return proto


def wide_graph(*, sparse: bool) -> onnx.ModelProto:
    """fp32, of linear layers, one of them with 256 channels in and out: `sparse` has zeros of the 2:4 pattern in it."""
    text = (
        '<ir_version: 10, opset_import: ["": 18]> wide '
        f"(float[batch, 3, 8, 8] image) => (float[batch, {CLASSES}] logits) {{"
        "    flat = Flatten(image)"
        "    first = Gemm<transB = 1>(flat, narrow)"
        "    second = Gemm<transB = 1>(first, wide)"
        "    logits = Gemm<transB = 1>(second, last)"
        "}"
    )
    proto = parser.parse_model(text)
    random = np.random.default_rng(1)
    for name, shape in (("narrow", (256, 192)), ("wide", (256, 256)), ("last", (CLASSES, 256))):
        weights = random.normal(size=shape).astype(np.float32) / 16
        if sparse and name == "wide":
            weights[:, 1::4] = weights[:, 2::4] = 0
        proto.graph.initializer.append(numpy_helper.from_array(weights, name))
    return proto


def small_model(folder: Path, precision: Precision = "fp32", profile: QuantizationProfile = "tensorrt") -> OnnxModel:
    """The graph in a precision, quantized by the project's own code, as `<precision>.onnx` in the folder."""
    model = write_onnx(small_graph(), folder / "fp32.onnx")
    if precision == "fp32":
        return model
    to = folder / f"{precision}.onnx"
    return quantize(model, Quantization(precision=precision), calibration=IMAGES, profile=profile, to=to)
