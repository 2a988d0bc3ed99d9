"""Answers of several layers in one output: in 8 bits each keeps a scale of its own."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from scalesearch.compression.quantize import Calibration, quantize
from scalesearch.deployment.onnx_file import checking_session, onnx_model, read_onnx
from scalesearch.values.candidate import Quantization
from scalesearch.values.network import OnnxModel

IMAGES = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)


def written(path: Path, *, join: bool) -> OnnxModel:
    """Write two layers, whose answers differ a hundredfold in size, in one output of shape (N, 8, 64); or their sum."""
    rng = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(rng.normal(0.0, size, (4, 3, 1, 1)).astype(np.float32), f"{name}.weight")
        for name, size in (("small", 0.1), ("large", 10.0))
    ]
    layers = [
        helper.make_node("Conv", ["image", f"{name}.weight"], [name], name=name, kernel_shape=[1, 1])
        for name in ("small", "large")
    ]
    if join:
        ends = [
            helper.make_node("Concat", ["small", "large"], ["joined"], name="join", axis=1),
            helper.make_node("Reshape", ["joined", "shape"], ["raw"], name="flatten"),
        ]
        weights.append(numpy_helper.from_array(np.array([0, 8, 64], dtype=np.int64), "shape"))
        shape: list[str | int] = ["batch", 8, 64]
    else:
        ends = [
            helper.make_node("Add", ["small", "large"], ["sum"], name="add"),
            helper.make_node("Relu", ["sum"], ["raw"], name="relu"),
        ]
        shape = ["batch", 4, 8, 8]
    graph = helper.make_graph(
        [*layers, *ends],
        "joined",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("raw", onnx.TensorProto.FLOAT, shape)],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return onnx_model(path)


def test_small_answers_beside_large_ones_keep_their_precision(tmp_path: Path) -> None:
    model = written(tmp_path / "float.onnx", join=True)
    quantized = quantize(
        model,
        Quantization(precision="int8"),
        calibration=Calibration(images=IMAGES),
        profile="onnxruntime_cpu",
        to=tmp_path / "int8.onnx",
    )
    expected, answers = (
        checking_session(read_onnx(each.path), as_written=True).run(None, {"image": IMAGES})[0]
        for each in (model, quantized)
    )
    for part in (slice(0, 4), slice(4, 8)):
        spread = float(expected[:, part].max() - expected[:, part].min())
        # One step of the output and one each of input and weights; with a shared scale the error of the small ones
        # would be half of a 255th of the large ones' spread: twenty times this.
        assert np.abs(answers[:, part] - expected[:, part]).mean() < spread / 100


@pytest.mark.parametrize("join", [True, False])
def test_only_joined_answers_leave_in_float(join: bool, tmp_path: Path) -> None:
    model = written(tmp_path / "float.onnx", join=join)
    quantized = quantize(
        model,
        Quantization(precision="int8"),
        calibration=Calibration(images=IMAGES),
        profile="onnxruntime_cpu",
        to=tmp_path / "int8.onnx",
    )
    graph = read_onnx(quantized.path).graph
    (last,) = [node.op_type for node in graph.node if graph.output[0].name in node.output]
    assert (last == "DequantizeLinear") != join
