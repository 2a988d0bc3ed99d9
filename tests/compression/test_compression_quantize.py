import logging
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tiny_networks import gratings, trained_network

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.errors import StageFailed
from scalesearch.tasks.classification.pieces import quantize, to_onnx
from scalesearch.values.candidate import CalibrationMethod, Precision, Quantization, WeightScales
from scalesearch.values.network import OnnxModel
from scalesearch.values.target import QuantizationProfile

_CALIBRATION, _ = gratings(128, seed=5)
_IMAGES, _LABELS = gratings(300, seed=6)
_NVIDIA_PLACES: tuple[QuantizationProfile, ...] = ("openvino", "tensorrt")
_PROFILES: tuple[QuantizationProfile, ...] = ("onnxruntime_cpu", "tensorrt")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    """A trained network with depthwise convolutions, the kind that 8 bits hurt most."""
    folder = tmp_path_factory.mktemp("float")
    return to_onnx(fold_batchnorm(trained_network()), to=folder / "model.onnx", check_images=_CALIBRATION[:8])


def _quantized(
    model: OnnxModel,
    to: Path,
    *,
    precision: Precision = "int8",
    calibration: CalibrationMethod = "minmax",
    percentile: float = 99.9,
    profile: QuantizationProfile = "onnxruntime_cpu",
) -> OnnxModel:
    quantization = Quantization(precision=precision, calibration=calibration, clip_percentile=percentile)
    return quantize(model, quantization, calibration=_CALIBRATION, profile=profile, to=to)


def _logits(model: OnnxModel, *, exact: bool = False) -> NDArray[np.float32]:
    """What ONNX Runtime answers; `exact` runs every Q/DQ node as written, with no integer kernel."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if exact:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(["logits"], {"image": _IMAGES})[0]
    return logits


def _top1(logits: NDArray[np.float32]) -> float:
    return float((logits.argmax(axis=1) == _LABELS).mean())


def _constants(model: OnnxModel) -> dict[str, NDArray[np.generic]]:
    graph = onnx.load(model.path).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _nodes(model: OnnxModel, kind: str) -> list[onnx.NodeProto]:
    return [node for node in onnx.load(model.path).graph.node if node.op_type == kind]


def _activation_scales(model: OnnxModel) -> dict[str, float]:
    constants = _constants(model)
    return {node.input[0]: float(constants[node.input[1]]) for node in _nodes(model, "QuantizeLinear")}


def test_the_network_has_learnt_or_nothing_here_means_anything(model: OnnxModel) -> None:
    assert _top1(_logits(model)) > 0.7


def test_fp32_is_the_same_file(model: OnnxModel, tmp_path: Path) -> None:
    copy = _quantized(model, tmp_path / "copy.onnx", precision="fp32")
    assert copy == onnx_model(copy.path)
    assert (copy.sha256, copy.size_bytes) == (model.sha256, model.size_bytes)


def test_fp16_holds_half_precision_and_answers_nearly_the_same(model: OnnxModel, tmp_path: Path) -> None:
    half = _quantized(model, tmp_path / "half.onnx", precision="fp16")
    graph = onnx.load(half.path).graph
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert {tensor.data_type for tensor in graph.initializer} <= {TensorProto.FLOAT16, TensorProto.INT64}
    expected, logits = _logits(model), _logits(half)
    # Half precision has 11 significant bits: 5e-4 an operation, some twenty of them in a row.
    assert np.abs(logits - expected).max() < 0.02 * expected.std()
    assert not np.array_equal(logits, expected)


def test_bf16_holds_bf16_between_float32_ends(model: OnnxModel, tmp_path: Path) -> None:
    """How near its answers are: test_compression_half.py. ONNX Runtime's CPU kernels do not run it."""
    half = _quantized(model, tmp_path / "half.onnx", precision="bf16")
    graph = onnx.load(half.path).graph
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert {tensor.data_type for tensor in graph.initializer} <= {TensorProto.BFLOAT16, TensorProto.INT64}
    assert [node.op_type for node in graph.node].count("Cast") == 2


@pytest.mark.parametrize("profile", _PROFILES)
@pytest.mark.parametrize("calibration", get_args(CalibrationMethod))
def test_int8_loses_little_accuracy(
    model: OnnxModel, tmp_path: Path, profile: QuantizationProfile, calibration: CalibrationMethod
) -> None:
    quantized = _quantized(model, tmp_path / "int8.onnx", calibration=calibration, profile=profile)
    expected, logits = _logits(model), _logits(quantized, exact=True)
    assert not np.allclose(logits, expected, atol=1e-3)
    assert _top1(logits) > _top1(expected) - 0.03
    # A step of int8 is 1/254 of an activation's range, so its error (uniform) 0.1 % of it; twelve layers add theirs.
    assert np.sqrt(np.mean((logits - expected) ** 2)) < 0.05 * expected.std()


@pytest.mark.slow
@pytest.mark.parametrize("calibration", get_args(CalibrationMethod))
def test_fp8_loses_little_accuracy(model: OnnxModel, tmp_path: Path, calibration: CalibrationMethod) -> None:
    """Run as it is written: with its optimizations on, ONNX Runtime 1.32 answers wrongly (WeightBiasQuantization)."""
    quantized = _quantized(model, tmp_path / "fp8.onnx", precision="fp8", calibration=calibration, profile="tensorrt")
    expected, logits = _logits(model), _logits(quantized, exact=True)
    assert not np.allclose(logits, expected, atol=1e-3)
    assert _top1(logits) > _top1(expected) - 0.03
    # Three bits of mantissa: the error of a number is 2 % of it (uniform within 1/16 either way), and averages out.
    assert np.sqrt(np.mean((logits - expected) ** 2)) < 0.1 * expected.std()


def test_what_is_not_quantized_is_in_half_precision_for_tensorrt_and_in_float_for_openvino(
    model: OnnxModel, tmp_path: Path
) -> None:
    kinds: dict[QuantizationProfile, set[int]] = {
        "tensorrt": {TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT64},
        "openvino": {TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT64},
    }
    answers = {}
    for profile, expected in kinds.items():
        quantized = _quantized(model, tmp_path / f"{profile}.onnx", profile=profile)
        assert {tensor.data_type for tensor in onnx.load(quantized.path).graph.initializer} == expected
        answers[profile] = _logits(quantized)
    # Else they are one network: the same steps, scales rounded to half precision on the one side.
    difference = np.abs(answers["tensorrt"] - answers["openvino"]).mean()
    assert difference < 0.02 * answers["openvino"].std()


def test_integer_kernels_of_this_cpu_do_not_saturate(model: OnnxModel, tmp_path: Path) -> None:
    """With 8-bit weights this fails on a CPU without VNNI: see benchmarks/int8_profiles.py."""
    quantized = _quantized(model, tmp_path / "int8.onnx")
    fast, exact = _logits(quantized), _logits(quantized, exact=True)
    assert (fast.argmax(axis=1) == exact.argmax(axis=1)).mean() > 0.98
    assert np.abs(fast - exact).mean() < 0.05 * exact.std()


def test_weights_are_int8_by_channel_and_of_seven_bits_for_the_cpu(model: OnnxModel, tmp_path: Path) -> None:
    for profile, largest in (("onnxruntime_cpu", 64), ("tensorrt", 127)):
        quantized = _quantized(model, tmp_path / f"{profile}.onnx", profile=profile)  # type: ignore[arg-type]
        constants = _constants(quantized)
        producers = {node.output[0]: node for node in _nodes(quantized, "DequantizeLinear")}
        convolutions = _nodes(quantized, "Conv")
        assert len(convolutions) == 7  # stem, two blocks of three
        for convolution in convolutions:
            weight, scale, zero_point = (constants[name] for name in producers[convolution.input[1]].input)
            assert weight.dtype == np.int8
            assert scale.shape == (weight.shape[0],)
            assert not zero_point.astype(int).any()
            assert largest - 1 <= np.abs(weight.astype(int)).max() <= largest


def test_the_cpu_profile_has_unsigned_activations_and_integer_biases(model: OnnxModel, tmp_path: Path) -> None:
    quantized = _quantized(model, tmp_path / "int8.onnx")
    constants = _constants(quantized)
    assert {constants[node.input[2]].dtype for node in _nodes(quantized, "QuantizeLinear")} == {np.dtype(np.uint8)}
    assert any(constants[node.input[0]].dtype == np.int32 for node in _nodes(quantized, "DequantizeLinear")
               if node.input[0] in constants)  # fmt: skip


def test_the_tensorrt_profile_has_nothing_that_tensorrt_refuses(model: OnnxModel, tmp_path: Path) -> None:
    """Its parser refuses uint8, zero points other than zero, and an int32 bias: test_deployment_tensorrt_builder.py."""
    quantized = _quantized(model, tmp_path / "int8.onnx", profile="tensorrt")
    constants = _constants(quantized)
    nodes = [*_nodes(quantized, "QuantizeLinear"), *_nodes(quantized, "DequantizeLinear")]
    assert nodes
    for node in nodes:
        zero_point = constants[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.astype(int).any()
    assert all(array.dtype != np.int32 for array in constants.values())


@pytest.mark.slow
@pytest.mark.parametrize("profile", _PROFILES)
def test_methods_and_percentiles_give_other_scales(
    model: OnnxModel, tmp_path: Path, profile: QuantizationProfile
) -> None:
    settings: list[tuple[CalibrationMethod, float]] = [
        ("minmax", 99.9), ("percentile", 99.9), ("percentile", 99.0), ("entropy", 99.9), ("mse", 99.9)
    ]  # fmt: skip
    scales = []
    for place, (calibration, percentile) in enumerate(settings):
        quantized = _quantized(
            model, tmp_path / f"{place}.onnx", calibration=calibration, percentile=percentile, profile=profile
        )
        scales.append(_activation_scales(quantized))
    assert all(scale.keys() == scales[0].keys() for scale in scales)
    for first in range(len(scales)):
        for second in range(first):
            changed = [abs(scales[first][name] / scales[second][name] - 1) > 0.01 for name in scales[0]]
            assert np.mean(changed) > 0.3, (settings[first], settings[second])


@pytest.mark.parametrize("profile", _PROFILES)
def test_weights_per_tensor_have_one_scale(model: OnnxModel, tmp_path: Path, profile: QuantizationProfile) -> None:
    files = {}
    for weights in get_args(WeightScales):
        quantization = Quantization(precision="int8", weights=weights)
        to = tmp_path / f"{weights}.onnx"
        files[weights] = quantize(model, quantization, calibration=_CALIBRATION, profile=profile, to=to)
    shapes = {weights: {shape for _, shape in _weight_scales(file)} for weights, file in files.items()}
    assert shapes["per_tensor"] <= {(), (1,)}
    assert not shapes["per_channel"] & {(), (1,)}
    if profile == "onnxruntime_cpu":  # the other one's half precision is slow here
        expected = _logits(model)
        errors = {weights: np.mean((_logits(file, exact=True) - expected) ** 2) for weights, file in files.items()}
        assert errors["per_channel"] < errors["per_tensor"]


def _weight_scales(model: OnnxModel) -> list[tuple[str, tuple[int, ...]]]:
    """Of every quantized convolution and linear layer: its name and its weight scale's shape."""
    constants = _constants(model)
    producers = {node.output[0]: node for node in _nodes(model, "DequantizeLinear")}
    layers = [node for kind in ("Conv", "Gemm") for node in _nodes(model, kind) if node.input[1] in producers]
    return [(node.name, constants[producers[node.input[1]].input[1]].shape) for node in layers]


def _mixed(
    model: OnnxModel, to: Path, k: int, *, precision: Precision = "int8", profile: QuantizationProfile
) -> OnnxModel:
    quantization = Quantization(precision=precision, weights="per_tensor", keep_float=k)
    return quantize(model, quantization, calibration=_CALIBRATION, profile=profile, to=to)


_STYLES: tuple[tuple[QuantizationProfile, Precision], ...] = (
    ("onnxruntime_cpu", "int8"),
    ("openvino", "int8"),
    ("openvino", "fp8"),
)


@pytest.mark.parametrize(("profile", "precision"), _STYLES)
def test_the_layers_that_suffer_most_stay_in_float(
    model: OnnxModel, tmp_path: Path, profile: QuantizationProfile, precision: Precision
) -> None:
    layers = 8  # stem, two blocks of three, classifier
    expected = _logits(model)
    errors = []
    for k in (0, 3):
        mixed = _mixed(model, tmp_path / f"{k}.onnx", k, precision=precision, profile=profile)
        quantized = {name for name, _ in _weight_scales(mixed)}
        assert len(quantized) == layers - k
        errors.append(np.mean((_logits(mixed, exact=True) - expected) ** 2))
    assert errors[0] > 2 * errors[1] > 0


def test_kept_layers_are_in_half_precision_for_tensorrt(model: OnnxModel, tmp_path: Path) -> None:
    """Which ones: those of the OpenVINO style, which rounds the same numbers."""
    files = {profile: _mixed(model, tmp_path / f"{profile}.onnx", 3, profile=profile) for profile in _NVIDIA_PLACES}
    quantized = {profile: {name for name, _ in _weight_scales(file)} for profile, file in files.items()}
    assert quantized["tensorrt"] == quantized["openvino"]
    constants = _constants(files["tensorrt"])
    layers = [*_nodes(files["tensorrt"], "Conv"), *_nodes(files["tensorrt"], "Gemm")]
    kept = [node for node in layers if node.name not in quantized["tensorrt"]]
    assert [constants[node.input[1]].dtype for node in kept] == [np.float16] * 3


@pytest.mark.parametrize(("profile", "precision"), [*_STYLES, ("tensorrt", "int8"), ("tensorrt", "fp8")])
@pytest.mark.parametrize("k", [8, 100])
def test_keeping_every_layer_gives_the_float_file(
    model: OnnxModel, tmp_path: Path, profile: QuantizationProfile, precision: Precision, k: int
) -> None:
    mixed = _mixed(model, tmp_path / "mixed.onnx", k, precision=precision, profile=profile)
    plain = _quantized(model, tmp_path / "plain.onnx", precision="fp16" if profile == "tensorrt" else "fp32")
    assert mixed.sha256 == plain.sha256


def test_kept_layers_of_the_cpu_style_are_followed_by_float_until_eight_bits_are_read_again(
    model: OnnxModel, tmp_path: Path
) -> None:
    """Q/DQ nodes around an activation function between two float layers would only cost."""
    mixed = _mixed(model, tmp_path / "mixed.onnx", 6, profile="onnxruntime_cpu")
    nodes = list(onnx.load(mixed.path).graph.node)
    producers: dict[str, Any] = {output: node for node in nodes for output in node.output}
    quantized = {name for name, _ in _weight_scales(mixed)}
    floats = [node for node in nodes if node.op_type == "Conv" and node.name not in quantized]
    assert len(floats) + sum(node.op_type == "Gemm" and node.name not in quantized for node in nodes) == 6
    clips = [node for node in nodes if node.op_type == "Clip" and producers[node.input[0]] in floats]
    assert clips  # read straight from a float convolution, with nothing between


@pytest.mark.parametrize("k", [0, 4, 5])
def test_onnxruntime_leaves_kept_layers_in_float(model: OnnxModel, tmp_path: Path, k: int) -> None:
    """Its optimizer WeightBiasQuantization rounds float weights between 8-bit activations unless kept from it."""
    mixed = _mixed(model, tmp_path / "mixed.onnx", k, profile="onnxruntime_cpu")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(mixed.path), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") + kinds.count("QGemm") == 8 - k
    fast, exact = _logits(mixed), _logits(mixed, exact=True)
    assert np.abs(fast - exact).mean() < 0.05 * exact.std()


@pytest.mark.parametrize("profile", _PROFILES)
def test_given_ranges_take_the_place_of_calibrated_ones(
    model: OnnxModel, tmp_path: Path, profile: QuantizationProfile
) -> None:
    graph = onnx.load(model.path).graph
    third = [node for node in graph.node if node.op_type == "Conv"][2]
    quantization = Quantization(precision="int8")
    before = quantize(model, quantization, calibration=_CALIBRATION, profile=profile, to=tmp_path / "before.onnx")
    given = {third.input[1]: (0.0, 2.54), "classifier.weight": (-0.5, 1.27)}
    after = quantize(
        model, quantization, calibration=_CALIBRATION, profile=profile, to=tmp_path / "after.onnx", input_ranges=given
    )
    scales = _activation_scales(after)
    # 255 unsigned steps from 0, or 127 on each side of it.
    expected = 2.54 / 255 if profile == "onnxruntime_cpu" else 2.54 / 127
    assert scales[third.input[0]] == pytest.approx(expected, rel=1e-3)
    changed = {name for name, scale in scales.items() if scale != _activation_scales(before)[name]}
    (classifier,) = (node for node in graph.node if node.op_type == "Gemm")
    assert {third.input[0], classifier.input[0]} <= changed
    # With the classifier's input goes the pool's output that it is a view of.
    assert len(changed) <= 3


def test_a_given_range_lets_nothing_pass_that_relu6_cuts_off(model: OnnxModel, tmp_path: Path) -> None:
    cut = {node.output[0]: node for node in _nodes(model, "Clip")}
    given = {node.input[1]: (0.0, 8.0) for node in _nodes(model, "Conv") if node.input[0] in cut}
    quantized = quantize(
        model,
        Quantization(precision="int8"),
        calibration=_CALIBRATION,
        profile="onnxruntime_cpu",
        to=tmp_path / "int8.onnx",
        input_ranges=given,
    )
    assert not _nodes(quantized, "Clip"), "saturation stands in for them"
    scales = [scale for name, scale in _activation_scales(quantized).items() if name in cut]
    assert len(scales) >= len(given) > 2
    assert max(scales) == pytest.approx(6.0 / 255)


def test_a_given_range_of_an_unknown_weight_is_refused(model: OnnxModel, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"quantize: a range is given for stem\.9\.weight, but no layer has"):
        quantize(
            model,
            Quantization(precision="int8"),
            calibration=_CALIBRATION,
            profile="tensorrt",
            to=tmp_path / "x.onnx",
            input_ranges={"stem.9.weight": (0.0, 1.0)},
        )


@pytest.mark.parametrize(("profile", "precision"), _STYLES)
def test_corrected_biases_bring_the_answers_nearer(
    model: OnnxModel, tmp_path: Path, profile: QuantizationProfile, precision: Precision
) -> None:
    expected, errors = _logits(model), []
    for corrected in (False, True):
        quantization = Quantization(precision=precision, weights="per_tensor", bias_correction=corrected)
        to = tmp_path / f"{corrected}.onnx"
        answers = _logits(quantize(model, quantization, calibration=_CALIBRATION, profile=profile, to=to), exact=True)
        errors.append(np.mean((answers - expected).mean(axis=0) ** 2))
    assert errors[1] < 0.7 * errors[0]


def test_the_scale_of_the_input_is_its_percentile_range(model: OnnxModel, tmp_path: Path) -> None:
    quantized = _quantized(model, tmp_path / "int8.onnx", calibration="percentile", percentile=99.0)
    low, high = np.percentile(_CALIBRATION, [0.5, 99.5])
    assert _activation_scales(quantized)["image"] == pytest.approx((high - low) / 255, rel=1e-4)


def test_only_the_asked_number_of_images_is_used(model: OnnxModel, tmp_path: Path) -> None:
    few = Quantization(precision="int8", calibration_images=4)
    quantized = quantize(model, few, calibration=_CALIBRATION, profile="onnxruntime_cpu", to=tmp_path / "few.onnx")
    low, high = _CALIBRATION[:4].min(), _CALIBRATION[:4].max()
    assert _activation_scales(quantized)["image"] == pytest.approx((high - low) / 255, rel=1e-4)


def test_files_shrink_with_the_precision(tmp_path: Path) -> None:
    """On a file in which weights, not graph, are most of the bytes: 200 kB of one convolution."""
    large = _one_convolution(tmp_path / "large.onnx", weight=np.ones((128, 400, 1, 1), dtype=np.float32))
    images = np.random.default_rng(0).normal(size=(4, 400, 2, 2)).astype(np.float32)
    sizes = {}
    for precision in ("fp32", "fp16", "int8"):
        quantization = Quantization(precision=precision)
        path = tmp_path / f"{precision}.onnx"
        sizes[precision] = quantize(
            large, quantization, calibration=images, profile="onnxruntime_cpu", to=path
        ).size_bytes
    assert sizes["fp16"] == pytest.approx(sizes["fp32"] / 2, rel=0.02)
    assert sizes["int8"] == pytest.approx(sizes["fp32"] / 4, rel=0.05)


def _one_convolution(path: Path, *, weight: NDArray[np.float32]) -> OnnxModel:
    channels = weight.shape[1]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight"], ["map"]),
         helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
         helper.make_node("Flatten", ["pooled"], ["logits"])],
        "one_convolution",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", channels, 2, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", weight.shape[0]])],
        [numpy_helper.from_array(weight, "weight")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return onnx_model(path)


def test_fp16_refuses_weights_that_it_would_clamp(tmp_path: Path) -> None:
    model = _one_convolution(tmp_path / "huge.onnx", weight=np.full((2, 3, 1, 1), 7e4, dtype=np.float32))
    images = np.zeros((2, 3, 2, 2), dtype=np.float32)
    with pytest.raises(StageFailed, match=r"quantize: fp16 holds up to 65504, but weight weight reaches 7e\+04"):
        quantize(
            model, Quantization(precision="fp16"), calibration=images, profile="onnxruntime_cpu", to=tmp_path / "h"
        )


def test_fp16_refuses_activations_that_overflow(tmp_path: Path) -> None:
    model = _one_convolution(tmp_path / "large.onnx", weight=np.full((2, 3, 1, 1), 5e4, dtype=np.float32))
    images = np.ones((2, 3, 2, 2), dtype=np.float32)
    with pytest.raises(StageFailed, match="overflow in fp16"):
        quantize(
            model, Quantization(precision="fp16"), calibration=images, profile="onnxruntime_cpu", to=tmp_path / "l"
        )


def test_images_of_another_shape_are_refused(model: OnnxModel, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"quantize: calibration images must be float32 \(N, \*\(3, 16, 16\)\)"):
        quantize(
            model, Quantization(precision="int8"), calibration=_CALIBRATION[:, :, :8], profile="tensorrt", to=tmp_path
        )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "fp8"])
def test_it_is_silent_leaves_no_file_and_no_trace_in_logging(
    model: OnnxModel, tmp_path: Path, capfd: pytest.CaptureFixture[str], precision: Precision
) -> None:
    before = model.path.read_bytes()
    handlers, path = list(logging.root.handlers), list(sys.path)
    _quantized(model, tmp_path / "model.onnx", precision=precision)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert logging.root.handlers == handlers
    assert logging.root.manager.disable == logging.NOTSET
    assert sys.path == path
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert model.path.read_bytes() == before


_IN_ANOTHER_PROCESS = """
import sys
import numpy as np
from pathlib import Path
from scalesearch.tasks.classification.pieces import quantize
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.values.candidate import Quantization
folder = Path(sys.argv[2])
images = np.load(folder / "images.npy")
quantization = Quantization(precision="int8")
to = folder / "other.onnx"
print(quantize(onnx_model(Path(sys.argv[1])), quantization, calibration=images, profile="tensorrt", to=to).sha256)
"""


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(model: OnnxModel, tmp_path: Path) -> None:
    """The quantizer works with sets of names, whose order differs from process to process."""
    np.save(tmp_path / "images.npy", _CALIBRATION)
    command = [sys.executable, "-c", _IN_ANOTHER_PROCESS, str(model.path), str(tmp_path)]
    other = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"})
    assert other.stdout.strip() == _quantized(model, tmp_path / "here.onnx", profile="tensorrt").sha256
