"""The mean of every layer's output, which rounding shifts and the corrected bias brings back."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from scalesearch.compression.bias_correction import correct_biases
from scalesearch.compression.number_format import FORMATS, FormatName
from scalesearch.tasks.classification.pieces import run_as_written
from scalesearch.values.candidate import WeightScales

_IMAGES = (np.random.default_rng(0).normal(size=(50, 4, 6, 6)) + 1).astype(np.float32)
_HEADER = '<ir_version: 10, opset_import: ["": 18]> tiny (float[batch, 4, 6, 6] image) => (float[batch, 4, 6, 6] out)'
_LAYERS = {
    "padded, without bias": ("{ out = Conv<pads = [1, 1, 1, 1]>(image, w) }", (4, 4, 3, 3)),
    "with bias": ("{ out = Conv(image, w, b) }", (4, 4, 1, 1)),
    "depthwise": ("{ out = Conv<group = 4, pads = [1, 1, 1, 1]>(image, w, b) }", (4, 1, 3, 3)),
    "linear": (
        "{ p = GlobalAveragePool(image) f = Flatten(p) g = Gemm<transB = 1>(f, w, b) s = Constant<value_ints = "
        "[-1, 4, 1, 1]>() r = Reshape(g, s) z = Sub(image, image) out = Add(z, r) }",
        (4, 4),
    ),
}


def _model(body: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    proto = parser.parse_model(f"{_HEADER} {body}")
    random = np.random.default_rng(1)
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    for name, size in (("w", shape), ("b", (4,))):
        if any(name in node.input for node in proto.graph.node):
            proto.graph.initializer.append(numpy_helper.from_array(random.normal(size=size).astype(np.float32), name))
    return onnx.shape_inference.infer_shapes(proto)


def _constants(proto: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def _with_rounded_weights(proto: onnx.ModelProto, name: FormatName, weights: WeightScales) -> onnx.ModelProto:
    """Weights rounded by definition: to the nearest code, one scale for all or for each first index."""
    rounded = onnx.ModelProto()
    rounded.CopyFrom(proto)
    codes = FORMATS[name].codes
    for tensor in rounded.graph.initializer:
        if tensor.name == "w":
            values = numpy_helper.to_array(tensor).astype(np.float64)
            axes = tuple(range(1, values.ndim)) if weights == "per_channel" else None
            scale = np.abs(values).max(axis=axes, keepdims=True) / codes[-1]
            nearest = codes[np.searchsorted((codes[1:] + codes[:-1]) / 2, values / scale)] * scale
            tensor.CopyFrom(numpy_helper.from_array(nearest.astype(np.float32), "w"))
    return rounded


def _channel_means(proto: onnx.ModelProto) -> NDArray[np.float64]:
    means: NDArray[np.float64] = run_as_written(proto, _IMAGES).astype(np.float64).mean(axis=(0, 2, 3))
    return means


@pytest.mark.parametrize("weights", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("name", ["int8", "fp8"])
@pytest.mark.parametrize("layer", _LAYERS)
def test_outputs_have_the_float_networks_mean_again(layer: str, name: FormatName, weights: WeightScales) -> None:
    proto = _model(*_LAYERS[layer])
    expected = _channel_means(proto)
    shifted = np.abs(_channel_means(_with_rounded_weights(proto, name, weights)) - expected)
    corrected = correct_biases(proto, _IMAGES, FORMATS[name], weights=weights)
    back = np.abs(_channel_means(_with_rounded_weights(corrected, name, weights)) - expected)
    assert shifted.max() > 1e-3
    assert back.max() < 1e-5
    np.testing.assert_array_equal(_constants(corrected)["w"], _constants(proto)["w"])
    onnx.checker.check_model(corrected, full_check=True)


def test_the_input_and_skipped_layers_stay_as_they_are() -> None:
    proto = _model("{ a = Conv(image, w, b) out = Conv(a, w, b) }", (4, 4, 1, 1))
    before = proto.SerializeToString(deterministic=True)
    corrected = correct_biases(proto, _IMAGES, FORMATS["int8"], skip={"Conv_0"})
    assert proto.SerializeToString(deterministic=True) == before
    first, second = corrected.graph.node
    assert list(first.input) == ["image", "w", "b"]  # a bias that two layers share is not changed for both
    assert second.input[2] != "b"


def test_layers_of_one_weight_get_a_bias_each() -> None:
    """The second layer reads other inputs, of another mean, so that rounding shifts its outputs by another amount."""
    proto = _model("{ a = Conv(image, w, b) c = Relu(a) out = Conv(c, w, b) }", (4, 4, 1, 1))
    corrected = correct_biases(proto, _IMAGES, FORMATS["int8"], weights="per_tensor")
    names = [tensor.name for tensor in corrected.graph.initializer]
    assert len(names) == len(set(names))
    rounded = _constants(_with_rounded_weights(proto, "int8", "per_tensor"))["w"][:, :, 0, 0]
    error = rounded - _constants(proto)["w"][:, :, 0, 0]
    inputs = (_IMAGES, _run_to(proto, "c"))
    for node, values in zip(list(corrected.graph.node)[::2], inputs, strict=True):
        change = _constants(corrected)[node.input[2]] - _constants(proto)["b"]
        np.testing.assert_allclose(change, -error @ values.mean(axis=(0, 2, 3)), atol=1e-5)


def _run_to(proto: onnx.ModelProto, name: str) -> NDArray[np.float32]:
    """The activation of that name on the images."""
    cut = onnx.ModelProto()
    cut.CopyFrom(proto)
    del cut.graph.output[:]
    cut.graph.output.extend(value for value in proto.graph.value_info if value.name == name)
    return run_as_written(cut, _IMAGES)


def test_a_product_of_matrices_has_no_bias_to_correct() -> None:
    proto = _model("{ out = MatMul(image, w) }", (6, 6))
    corrected = correct_biases(proto, _IMAGES, FORMATS["int8"])
    assert [list(node.input) for node in corrected.graph.node] == [["image", "w"]]


def test_rows_inside_a_module_count_as_rows_not_as_images() -> None:
    """A linear layer on 36 rows of each image: the mean over rows and images comes back."""
    layers = "t = Transpose<perm = [0, 2, 3, 1]>(image) rows = Reshape(t, four) g = Gemm<transB = 1>(rows, w, b)"
    shapes = "four = Constant<value_ints = [-1, 4]>() maps = Constant<value_ints = [-1, 6, 6, 4]>()"
    proto = _model(f"{{ {shapes} {layers} r = Reshape(g, maps) out = Transpose<perm = [0, 3, 1, 2]>(r) }}", (4, 4))
    expected = _channel_means(proto)
    shifted = np.abs(_channel_means(_with_rounded_weights(proto, "int8", "per_channel")) - expected)
    corrected = correct_biases(proto, _IMAGES, FORMATS["int8"])
    assert shifted.max() > 1e-3
    assert np.abs(_channel_means(_with_rounded_weights(corrected, "int8", "per_channel")) - expected).max() < 1e-5


def test_parts_of_images_that_go_through_one_convolution_together_count_as_rows() -> None:
    layers = "both = Concat<axis = 0>(image, image) c = Conv(both, w, b) one, two = Split<axis = 0>(c, sizes)"
    shapes = "n = Shape<end = 1>(image) sizes = Concat<axis = 0>(n, n)"
    proto = _model(f"{{ {shapes} {layers} out = Add(one, two) }}", (4, 4, 1, 1))
    expected = _channel_means(proto)
    corrected = correct_biases(proto, _IMAGES, FORMATS["int8"])
    assert np.abs(_channel_means(_with_rounded_weights(corrected, "int8", "per_channel")) - expected).max() < 2e-5
