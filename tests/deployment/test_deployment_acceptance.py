"""The acceptance matrix: networks at several scalings, in every precision, into NVIDIA's compiler."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from base_models import CLASSES, base_images, base_model

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.quantize import Calibration
from scalesearch.compression.quantize import quantize as quantize_by
from scalesearch.deployment.acceptance import Gate
from scalesearch.deployment.backends.tensorrt.library import is_installed
from scalesearch.deployment.to_onnx import to_onnx
from scalesearch.networks import BASES, base_spec, scale
from scalesearch.networks.build import build, settle_norms
from scalesearch.tasks.classification.pieces import quantize
from scalesearch.tasks.registry import get_task
from scalesearch.values.candidate import Precision, Quantization, Scaling
from scalesearch.values.network import OnnxModel
from scalesearch.values.network_spec import InputSize

pytestmark = pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="the extra `rtx` is not installed")

_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "fp8")
_CAPABILITY = "8.9"
"""The oldest with fp8."""
_LARGEST_FP8_KERNEL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One network to be taken in every precision."""

    base: str
    how: str
    scaling: Scaling
    pruned: float = 0.0
    channel_multiple: int = 16
    depthwise: bool = False
    squeezed: bool = False

    def __str__(self) -> str:
        return f"{self.base} {self.how}"


_PLAIN = Scaling(resolution=0.5)
_WAYS: tuple[tuple[str, Scaling, float, int], ...] = (
    # name, multipliers, pruned fraction, channel multiple; half resolution wherever it is not the question
    ("plain", _PLAIN, 0.0, 16),
    ("narrow, 5x5 and 7x7", Scaling(resolution=0.5, width=0.5, kernel=1.67), 0.0, 16),
    ("wide and deep", Scaling(resolution=0.5, width=1.25, depth=1.34), 0.0, 16),
    ("pruned to multiples of 8", _PLAIN, 0.4, 8),
    ("pruned to odd channels", _PLAIN, 0.3, 1),
)
_LARGE = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "efficientnet_lite0")
"""Their export takes 5 to 10 seconds: the extremes only, of blocks that the small ones have too."""


def _cases() -> list[_Case]:
    return [
        _Case(
            base=base,
            how=how,
            scaling=scaling,
            pruned=pruned,
            channel_multiple=multiple,
            depthwise=any(stage.block in ("inverted_residual", "mbconv") for stage in base_spec(base).stages),
            squeezed=any(stage.block == "mbconv" for stage in base_spec(base).stages),
        )
        for base in BASES
        for how, scaling, pruned, multiple in _WAYS
        if base not in _LARGE or how.startswith(("narrow", "pruned to multiples"))
    ]


_CASES = _cases()
_QUICK = tuple(
    case
    for case in _CASES
    if (case.base, case.how)
    in {
        ("resnet_small", "pruned to odd channels"),
        ("mobilenet_small", "pruned to multiples of 8"),
        ("efficientnet_small", "narrow, 5x5 and 7x7"),
    }
)


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate(_CAPABILITY)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case.base != "resnet_small")) for case in _QUICK], ids=str
)
def test_three_networks_are_taken_in_every_precision(gate: Gate, tmp_path: Path, case: _Case) -> None:
    _ensure_accepted(gate, tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in _CASES if case not in _QUICK], ids=str)
def test_every_base_network_is_taken_in_every_precision(gate: Gate, tmp_path: Path, case: _Case) -> None:
    _ensure_accepted(gate, tmp_path, case)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_detector_and_a_decoder_are_taken(gate: Gate, tmp_path: Path, task: str) -> None:
    """Of a rectangle, with a neck as deep and with as large kernels as the backbone's."""
    asked, scaling = get_task(task), Scaling(width=0.5, depth=2.0, kernel=1.67, neck_follows="all")
    size = InputSize(height_px=64, width_px=96)
    spec = scale(base_spec("resnet_scene"), scaling, resolution_px=size, num_classes=CLASSES, channel_multiple=16)
    images = base_images(size.height_px, width_px=size.width_px)
    folded = fold_batchnorm(settle_norms(build(spec, asked.make_module, seed=0), images))
    to = tmp_path / "float.onnx"
    model = to_onnx(folded, to=to, check_images=images[:4], output_names=asked.output_names)
    heavy = sum(node.op_type in ("Conv", "Gemm") for node in onnx.load(to).graph.node)
    calibration = Calibration(images=images, divergence=asked.divergence)
    precisions: tuple[Precision, ...] = ("fp16", "int8")
    for precision in precisions:
        quantization, file = Quantization(precision=precision), tmp_path / f"{precision}.onnx"
        accepted = gate.judge(quantize_by(model, quantization, calibration=calibration, profile="tensorrt", to=file))
        assert {count.precision: count.kernels for count in accepted.convolutions} == {precision: heavy}


def test_the_matrix_holds_what_it_claims() -> None:
    assert {case.base for case in _CASES} == set(BASES)
    assert len(_QUICK) == 3
    for kind in ("depthwise", "squeezed"):
        assert any(getattr(case, kind) for case in _QUICK)
    assert any(not case.depthwise for case in _QUICK)


def _ensure_accepted(gate: Gate, folder: Path, case: _Case) -> None:
    """Taken, and every convolution and linear layer runs in the precision that was asked for."""
    model = base_model(case.base, folder, case.scaling, pruned=case.pruned, channel_multiple=case.channel_multiple)
    graph = onnx.load(model.path).graph
    heavy = sum(node.op_type in ("Conv", "Gemm") for node in graph.node)
    _ensure_as_claimed(graph, case)
    for precision in _PRECISIONS:
        accepted = gate.judge(_quantized(model, precision, folder))
        kernels = {count.precision: count.kernels for count in accepted.convolutions}
        elsewhere = _too_large_for_fp8(graph) if precision == "fp8" else 0
        expected = {precision: heavy - elsewhere} | ({"fp16": elsewhere} if elsewhere else {})
        assert kernels == expected, precision
        assert accepted.layers >= heavy
        print(f"{case}: {precision}, {kernels} of {heavy}, {accepted.layers} layers, {accepted.build_s:.2f} s")


def _too_large_for_fp8(graph: onnx.GraphProto) -> int:
    """Convolutions wider than 5x5: TensorRT for RTX 1.7 has no fp8 kernels for them and takes them in fp16."""
    return sum(shape[-1] > _LARGEST_FP8_KERNEL for shape in _convolution_weights(graph))


def _convolution_weights(graph: onnx.GraphProto) -> list[tuple[int, ...]]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return [shapes[node.input[1]] for node in graph.node if node.op_type == "Conv"]


def _quantized(model: OnnxModel, precision: Precision, folder: Path) -> OnnxModel:
    images = base_images(model.input_shape[2])
    to = folder / f"{precision}.onnx"
    return quantize(model, Quantization(precision=precision), calibration=images, profile="tensorrt", to=to)


def _ensure_as_claimed(graph: onnx.GraphProto, case: _Case) -> None:
    """The file holds what the case is about: odd kernels, grouped convolutions, squeezes, pruned channels."""
    weights = _convolution_weights(graph)
    groups = [attribute.i for node in graph.node for attribute in node.attribute if attribute.name == "group"]
    assert (max(groups, default=1) > 1) == case.depthwise
    assert ("Sigmoid" in {node.op_type for node in graph.node}) == case.squeezed
    channels = np.array([shape[0] for shape in weights])
    if case.scaling.kernel > 1:
        assert max(shape[-1] for shape in weights[1:]) >= 5  # the stem's kernel is not scaled
    if case.pruned:
        multiple = case.channel_multiple
        assert any(channels % (2 * multiple)), "nothing was pruned to this multiple"
