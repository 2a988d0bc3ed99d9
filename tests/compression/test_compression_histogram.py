import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser

from scalesearch.compression.histogram import layer_histograms
from scalesearch.deployment.onnx_file import read_onnx, write_onnx
from scalesearch.errors import StageFailed
from scalesearch.tasks.classification.pieces import quantize
from scalesearch.values.candidate import CalibrationMethod, Precision, Quantization, WeightScales
from scalesearch.values.histogram import LayerHistogram, TensorHistogram
from scalesearch.values.network import OnnxModel
from scalesearch.values.target import QuantizationProfile

Images = NDArray[np.float32]

INT8 = Quantization(precision="int8", weights="per_tensor", calibration_images=400)


def _one_layer(weights: NDArray[Any], *, side_px: int = 4) -> onnx.ModelProto:
    """A convolution with these weights (outputs, 3, 1, 1) and nothing else."""
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "body.0.weight"], ["logits"], name="Conv_0")],
        "one_layer",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, side_px, side_px])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights.astype(np.float32), "body.0.weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _histogram(
    weights: NDArray[Any], images: Images, asked: Quantization = INT8, *, symmetric: bool = True
) -> LayerHistogram:
    (layer,) = layer_histograms(_one_layer(weights), images, asked, symmetric=symmetric)
    return layer


def _images(low: float, high: float, count: int = 400) -> Images:
    return np.random.default_rng(1).uniform(low, high, (count, 3, 4, 4)).astype(np.float32)


def test_uniform_values_lose_what_the_formula_says() -> None:
    """Uniform over the range -a..a of n steps a side: signal a^2 / 3, noise (a / n)^2 / 12, so 4 n^2 between them."""
    weights = np.random.default_rng(0).uniform(-0.7, 0.7, (4000, 3, 1, 1))
    eight = _histogram(weights, _images(-2, 2))
    assert eight.weights.sqnr_db == pytest.approx(10 * math.log10(4 * 127**2), abs=0.1)
    assert eight.activations.sqnr_db == pytest.approx(10 * math.log10(4 * 127**2), abs=0.1)
    # ONNX Runtime's style: weights of 64 steps, and 255 steps from 0 to a for activations that have no sign.
    cpu = _histogram(weights, _images(0, 2), symmetric=False)
    assert cpu.weights.sqnr_db == pytest.approx(10 * math.log10(4 * 64**2), abs=0.1)
    assert cpu.activations.sqnr_db == pytest.approx(10 * math.log10(4 * 255**2), abs=0.1)


def test_fp8_keeps_its_relative_error_where_int8_does_not() -> None:
    """E4M3 has 3 bits after the leading one: errors of 2^-4 at most and 25 to 32 dB, whatever lies beside."""
    values = np.random.default_rng(0).uniform(0.5, 1.0, (4000, 3, 1, 1))
    values[0, 0, 0, 0] = 64.0  # squeezes everything else into one step of int8
    assert (_histogram(values, _images(-2, 2), replace(INT8, precision="fp8")).weights.sqnr_db or 0) > 25
    rest = np.delete(values.ravel(), 0)
    step = 64 / 127
    noise = np.square(np.rint(rest / step) * step - rest).sum()
    expected = 10 * math.log10((np.square(rest).sum() + 64**2) / noise)
    assert _histogram(values, _images(-2, 2)).weights.sqnr_db == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("largest", "wasted"), [(3.9, False), (4.1, True)])
def test_an_outlier_four_times_the_others_wastes_the_range(largest: float, wasted: bool) -> None:
    weights = np.where(np.random.default_rng(0).random((4000, 3, 1, 1)) < 0.5, -1.0, 1.0)
    weights[7, 1, 0, 0] = largest
    layer = _histogram(weights, _images(-1, 1), replace(INT8, weights="per_channel"))
    assert layer.within_99 == pytest.approx(1 / largest)
    assert layer.wasted_range == wasted


def test_a_scale_per_channel_saves_the_channels_without_outlier() -> None:
    weights = np.random.default_rng(0).normal(0, 1, (64, 3, 1, 1))
    weights[0] *= 100
    kinds: tuple[WeightScales, ...] = ("per_channel", "per_tensor")
    rest = [_histogram(weights, _images(-1, 1), replace(INT8, weights=kind)).weights for kind in kinds]
    assert rest[0].sqnr_db is not None and rest[1].sqnr_db is not None
    assert rest[0].sqnr_db > rest[1].sqnr_db + 3
    assert rest[0].clip_high == rest[1].clip_high == pytest.approx(np.abs(weights).max())


def test_bins_hold_every_value_where_numpy_puts_it() -> None:
    weights = np.random.default_rng(0).normal(0, 1, (100, 3, 1, 1))
    images = _images(-1, 3)
    (layer,) = layer_histograms(
        _one_layer(weights), images, Quantization(calibration_images=400), symmetric=False, bins=10
    )
    reach = float(np.abs(weights.astype(np.float32)).max())
    assert layer.weights.counts == tuple(np.histogram(weights.astype(np.float32), 10, (-reach, reach))[0])
    assert layer.activations.counts == tuple(np.histogram(images, 10, (images.min(), images.max()))[0])
    assert (layer.name, layer.node, layer.kind, layer.shape) == ("body.0", "Conv_0", "Conv", (100, 3, 1, 1))


def test_the_clip_range_is_the_percentile_and_the_share_beyond_it_counted() -> None:
    images = _images(0, 1)
    values = _histogram(np.ones((2, 3, 1, 1)), images, replace(INT8, calibration="percentile", clip_percentile=90.0))
    assert values.activations.clip_high == pytest.approx(np.percentile(images, 90.0))
    assert values.activations.clipped_fraction == pytest.approx(0.1, abs=1e-4)
    assert values.activations.sqnr_db is not None
    # Clipped values lose (x - 0.9)^2: 0.1^3 / 3 over a signal of 1 / 3.
    assert values.activations.sqnr_db == pytest.approx(30.0, abs=0.5)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_float_trial_shows_what_int8_with_its_whole_range_would_do(precision: Precision) -> None:
    weights, images = np.random.default_rng(0).normal(0, 1, (16, 3, 1, 1)), _images(-1, 3)
    floating = _histogram(
        weights, images, replace(INT8, precision=precision, calibration="percentile", clip_percentile=60.0)
    )
    assert floating == _histogram(weights, images, replace(INT8, weights="per_channel"))
    assert floating.activations.clipped_fraction == 0


def test_zeros_lose_nothing_and_are_not_wasted() -> None:
    layer = _histogram(np.zeros((2, 3, 1, 1)), np.zeros((2, 3, 4, 4), np.float32))
    assert (layer.weights.sqnr_db, layer.activations.sqnr_db, layer.wasted_range) == (None, None, False)
    assert layer.weights.first_edge < 0 < layer.weights.last_edge
    assert sum(layer.activations.counts) == 96


def test_every_number_can_be_stored_as_json() -> None:
    layer = _histogram(
        np.random.default_rng(0).normal(0, 1, (4, 3, 1, 1)), _images(-1, 1), replace(INT8, calibration="mse")
    )
    again = json.loads(json.dumps(asdict(layer), allow_nan=False))
    for part in ("weights", "activations"):
        again[part] = TensorHistogram(**{**again[part], "counts": tuple(again[part]["counts"])})
    assert LayerHistogram(**{**again, "shape": tuple(again["shape"])}) == layer


_BODY = """<ir_version: 9, opset_import: ["" : 18]>
small (float[batch,3,8,8] image) => (float[batch,4] logits) {
    first = Conv<pads = [1, 1, 1, 1]>(image, stem, stem_bias)
    a = Relu(first)
    wide = Conv<group = 16, pads = [1, 1, 1, 1]>(a, depthwise, depthwise_bias)
    second = Conv(wide, pointwise, pointwise_bias)
    pooled = GlobalAveragePool(second)
    features = Flatten(pooled)
    logits = Gemm<transB = 1>(features, classifier, classifier_bias)
}"""
_SHAPES = {"stem": (16, 3, 3, 3), "depthwise": (16, 1, 3, 3), "pointwise": (8, 16, 1, 1), "classifier": (4, 8)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    """Activations with and without sign; heavy-tailed weights, so that the kinds of scales differ."""
    rng = np.random.default_rng(0)
    proto = parser.parse_model(_BODY)
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    for name, shape in _SHAPES.items():
        for tensor, values in ((name, rng.standard_t(3, shape)), (f"{name}_bias", rng.normal(0, 0.3, shape[0]))):
            proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), tensor))
    return write_onnx(proto, tmp_path_factory.mktemp("model") / "float.onnx")


@pytest.mark.parametrize("profile", ["tensorrt", "onnxruntime_cpu", "openvino"])
@pytest.mark.parametrize("method", ["minmax", "percentile"])
@pytest.mark.parametrize("scales", ["per_channel", "per_tensor"])
def test_it_is_what_the_quantized_file_really_holds(
    model: OnnxModel, profile: QuantizationProfile, method: CalibrationMethod, scales: WeightScales, tmp_path: Path
) -> None:
    """The file's own scales, zero points and weights, put through ONNX Runtime's QuantizeLinear."""
    images = np.random.default_rng(2).normal(0, 1, (32, 3, 8, 8)).astype(np.float32)
    asked = Quantization(precision="int8", calibration=method, clip_percentile=99.0, weights=scales)
    layers = layer_histograms(read_onnx(model.path), images, asked, symmetric=profile != "onnxruntime_cpu")
    written = quantize(model, asked, calibration=images, profile=profile, to=tmp_path / "int8.onnx")
    reader = _QuantizedFile(read_onnx(written.path))
    nodes = {node.name: node for node in read_onnx(model.path).graph.node}
    inner = _values(model.path, [nodes[layer.node].input[0] for layer in layers], images)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in read_onnx(model.path).graph.initializer}
    for layer in layers:
        read, weight = nodes[layer.node].input[:2]
        # fp16 scales and weights of TensorRT's style move the error by a hundredth of a decibel or two.
        assert layer.weights.sqnr_db == pytest.approx(reader.weight_sqnr_db(weight, weights[weight]), abs=0.05)
        assert layer.activations.sqnr_db == pytest.approx(reader.activation_sqnr_db(read, inner[read]), abs=0.05)


class _QuantizedFile:
    """Reads scales and zero points by the names of the tensors that they belong to."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        self._nodes = proto.graph.node

    def weight_sqnr_db(self, name: str, values: NDArray[Any]) -> float:
        node = next(
            node for node in self._nodes if node.op_type == "DequantizeLinear" and node.input[0] == f"{name}_quantized"
        )
        codes, scale, zero = (self._constants[each].astype(np.float64) for each in node.input)
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        shape = [-1 if place == axis else 1 for place in range(codes.ndim)] if scale.ndim else []
        return _sqnr_db(values, (codes - zero.reshape(shape)) * scale.reshape(shape))

    def activation_sqnr_db(self, name: str, values: Images) -> float:
        node = next(
            node
            for node in self._nodes
            if node.op_type == "QuantizeLinear"
            and node.input[0] in (name, f"{name}_half", f"{name}_QuantizeLinear_Input")
        )
        scale, zero = (self._constants[each] for each in node.input[1:])
        kind = helper.np_dtype_to_tensor_dtype(zero.dtype)
        graph = helper.make_graph(
            [
                helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
                helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
            ],
            "round_trip",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [
                numpy_helper.from_array(scale.astype(np.float32), "scale"),
                helper.make_tensor("zero", kind, [], [int(zero)]),
            ],
        )
        trip = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        session = ort.InferenceSession(trip.SerializeToString(), providers=["CPUExecutionProvider"])
        return _sqnr_db(values, session.run(None, {"x": values})[0])


def _sqnr_db(values: NDArray[Any], rounded: NDArray[Any]) -> float:
    wide = values.astype(np.float64)
    return 10 * math.log10(np.square(wide).sum() / np.square(wide - rounded.astype(np.float64)).sum())


def _values(path: Path, names: list[str], images: Images) -> dict[str, Images]:
    proto = read_onnx(path)
    wanted = sorted(set(names) - {"image"})
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(wanted, session.run(wanted, {"image": images}), strict=True)) | {"image": images}


@pytest.mark.parametrize(
    ("weights", "images", "message"),
    [
        (np.ones((2, 3, 1, 1)), np.ones((0, 3, 4, 4), np.float32), r"float32 images \(N, 3, 4, 4\), got 1 layers and"),
        (np.ones((2, 3, 1, 1)), np.ones((2, 3, 5, 5), np.float32), r"got 1 layers and float32 \(2, 3, 5, 5\)"),
        (np.ones((2, 3, 1, 1)), np.full((2, 3, 4, 4), np.nan, np.float32), "activation image is not finite"),
        (np.full((2, 3, 1, 1), np.inf), np.ones((2, 3, 4, 4), np.float32), "body.0.weight is not finite"),
    ],
    ids=["no images", "shape", "nan image", "infinite weight"],
)
def test_what_cannot_be_drawn_is_said(weights: NDArray[Any], images: Images, message: str) -> None:
    with pytest.raises(StageFailed, match=message):
        _histogram(weights, images)


def test_a_network_without_layers_is_said() -> None:
    proto = _one_layer(np.ones((2, 3, 1, 1)))
    proto.graph.node[0].CopyFrom(helper.make_node("Relu", ["image"], ["logits"]))
    with pytest.raises(StageFailed, match="got 0 layers"):
        layer_histograms(proto, _images(0, 1), Quantization(), symmetric=True)
