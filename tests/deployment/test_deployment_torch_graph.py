"""A graph run by torch answers as ONNX Runtime does, for every kind of base network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from base_models import base_images, base_model
from small_graphs import IMAGES, small_graph, small_model

from scalesearch.deployment.formats.torch_graph import TorchGraph, ensure_float, ensure_same
from scalesearch.deployment.onnx_file import checking_session, read_onnx
from scalesearch.errors import ConfigError, StageFailed


@pytest.mark.parametrize(
    "base",
    [
        pytest.param("resnet_small", marks=pytest.mark.slow),
        pytest.param("mobilenet_small", marks=pytest.mark.slow),
        pytest.param("efficientnet_small", marks=pytest.mark.slow),
        pytest.param("resnet18", marks=pytest.mark.slow),
    ],
)
def test_every_base_network_answers_the_same(base: str, tmp_path: Path) -> None:
    proto, images = read_onnx(base_model(base, tmp_path).path), base_images()
    expected = checking_session(proto).run(None, {"image": images})[0]
    spread = expected.std(axis=0).mean()
    with torch.no_grad():
        mine = TorchGraph(proto).eval()(torch.from_numpy(images)).numpy()
    assert spread > 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(mine, expected, atol=1e-3 * spread, rtol=1e-5)


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="DequantizeLinear, QuantizeLinear"):
        TorchGraph(read_onnx(small_model(tmp_path, "int8").path))
    proto = small_graph()
    proto.graph.node[1].op_type = "Tanh"
    with pytest.raises(StageFailed, match="the graph holds Tanh"):
        TorchGraph(proto)


def test_other_answers_are_refused(tmp_path: Path) -> None:
    model = small_model(tmp_path)
    right = np.asarray(checking_session(small_graph()).run(None, {"image": IMAGES})[0])
    ensure_same(model, IMAGES, right, "litert")
    wrong = right.copy()
    wrong[3, 1] += 0.01 * right.std(axis=0).mean()
    with pytest.raises(StageFailed, match="--format litert answers otherwise than ONNX Runtime"):
        ensure_same(model, IMAGES, wrong, "litert")


@pytest.mark.parametrize("precision", ["int8", "fp16", "bf16", "fp8"])
def test_only_fp32_is_taken(precision: str) -> None:
    with pytest.raises(ConfigError, match=f"--format executorch: expected a network in fp32, came {precision}"):
        ensure_float(precision, "executorch")  # type: ignore[arg-type]
