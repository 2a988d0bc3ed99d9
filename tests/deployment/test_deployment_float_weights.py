"""Float weights are told from those of another training, in every precision that a file can have."""

from pathlib import Path

import numpy as np
import pytest
from small_graphs import small_graph, small_model

from scalesearch.deployment.float_weights import float_weights, is_in_float, unlike_weight
from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.values.candidate import Precision
from scalesearch.values.target import QuantizationProfile

FILES: tuple[tuple[Precision, QuantizationProfile], ...] = (
    ("int8", "tensorrt"),
    ("int8", "onnxruntime_cpu"),
    ("fp8", "tensorrt"),
    ("fp16", "tensorrt"),
    ("bf16", "tensorrt"),
)


def test_weights_are_read_by_name_without_the_shapes() -> None:
    found = float_weights(small_graph())
    assert {name for name in found if not name.endswith("_bias")} == {"stem", "depthwise", "pointwise", "classifier"}
    assert found["depthwise"].shape == (16, 1, 3, 3)


@pytest.mark.parametrize(("precision", "profile"), FILES)
def test_the_own_weights_are_known_and_others_are_not(
    precision: Precision, profile: QuantizationProfile, tmp_path: Path
) -> None:
    deployed = read_onnx(small_model(tmp_path, precision, profile).path)
    assert not is_in_float(deployed)
    weights = float_weights(small_graph())
    assert unlike_weight(weights, deployed) == ""
    noise = np.random.default_rng(0).normal(size=weights["pointwise"].shape).astype(np.float32)
    moved = weights | {"pointwise": weights["pointwise"] + 0.3 * weights["pointwise"].std() * noise}
    assert unlike_weight(moved, deployed) == "pointwise"  # correlation 1 / sqrt(1 + 0.3 ** 2) = 0.958
    assert unlike_weight(moved, deployed, after_qat=True) == ""
    assert unlike_weight(weights | {"stem": weights["stem"][:8]}, deployed) == "stem"


def test_a_file_without_stored_weights_proves_nothing() -> None:
    assert "no weight" in unlike_weight(float_weights(small_graph()), small_graph())
