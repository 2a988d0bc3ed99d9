"""Answers of several layers in one output: in 8 bits each keeps a scale of its own."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from scalesearch.compression.quantize import quantize
from scalesearch.deployment.onnx_file import checking_session, onnx_model, read_onnx
from scalesearch.values.candidate import Quantization
from scalesearch.values.network import OnnxModel

IMAGES = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)


class Joined(nn.Module):
    """Two layers, whose answers differ a hundredfold in size, in one output; or their sum."""

    def __init__(self, *, join: bool) -> None:
        super().__init__()
        self.small, self.large, self.join = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), join
        with torch.no_grad():
            for layer, size in ((self.small, 0.1), (self.large, 10.0)):
                nn.init.normal_(layer.weight, std=size, generator=torch.Generator().manual_seed(1))
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        small, large = self.small(images), self.large(images)
        return torch.cat([small, large], dim=1).flatten(2) if self.join else torch.relu(small + large)


def written(path: Path, *, join: bool) -> OnnxModel:
    program = torch.onnx.export(
        Joined(join=join).eval(), (torch.from_numpy(IMAGES[:2]),), dynamo=True, verbose=False, opset_version=18,
        input_names=["image"], output_names=["raw"], dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    assert program is not None
    onnx.save(program.model_proto, path)
    return onnx_model(path)


def test_small_answers_beside_large_ones_keep_their_precision(tmp_path: Path) -> None:
    model = written(tmp_path / "float.onnx", join=True)
    quantized = quantize(
        model, Quantization(precision="int8"), calibration=IMAGES, profile="onnxruntime_cpu", to=tmp_path / "int8.onnx"
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
        model, Quantization(precision="int8"), calibration=IMAGES, profile="onnxruntime_cpu", to=tmp_path / "int8.onnx"
    )
    graph = read_onnx(quantized.path).graph
    (last,) = [node.op_type for node in graph.node if graph.output[0].name in node.output]
    assert (last == "DequantizeLinear") != join
