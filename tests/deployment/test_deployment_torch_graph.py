"""A graph run by torch answers as ONNX Runtime does, for every kind of base network."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from base_models import base_images, base_model
from onnx import parser
from small_graphs import IMAGES, small_graph, small_model

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.deployment.formats.torch_graph import TorchGraph, ensure_float, ensure_same, float_module
from scalesearch.deployment.onnx_file import checking_session, read_onnx
from scalesearch.deployment.to_onnx import to_onnx
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.networks import base_spec
from scalesearch.networks.build import build, settle_norms
from scalesearch.networks.scaling import scale
from scalesearch.tasks.base import Task
from scalesearch.tasks.detection.task import TASK as DETECTION
from scalesearch.tasks.segmentation.task import TASK as SEGMENTATION
from scalesearch.values.candidate import Scaling
from scalesearch.values.network_spec import Decoder, InputSize


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


NEAREST = 'mode = "nearest", nearest_mode = "floor", coordinate_transformation_mode = "asymmetric"'
LINEAR = 'mode = "linear", coordinate_transformation_mode = "half_pixel"'


def resizing_graph(how: str, factors: str = "{1, 1, 2, 4}") -> onnx.ModelProto:
    """A graph that puts an image and its shuffled channels side by side, enlarges both, and flattens the maps."""
    return parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 18]>
        resizing (float[batch, 3, 8, 8] image) => (float[batch, 5, points] answer)
        <int64[3] shape = {{-1, 5, 512}}, float[4] factors = {factors}, float[2, 3, 1, 1] mix = {{1, -2, 3, 0, 1, -1}}>
        {{
            mixed = Conv<kernel_shape = [1, 1]>(image, mix)
            both = Concat<axis = 1>(image, mixed)
            larger = Resize<{how}>(both, , factors)
            answer = Reshape(larger, shape)
        }}"""
    )


@pytest.mark.parametrize("how", [NEAREST, LINEAR])
def test_maps_are_put_together_and_enlarged_as_by_onnx_runtime(how: str) -> None:
    proto = resizing_graph(how)
    expected = checking_session(proto).run(None, {"image": IMAGES})[0]
    assert expected.shape == (len(IMAGES), 5, 512)
    with torch.no_grad():
        np.testing.assert_allclose(TorchGraph(proto)(torch.from_numpy(IMAGES)).numpy(), expected, atol=1e-5)
        exported = torch.export.export(TorchGraph(proto), (torch.from_numpy(IMAGES[:1].copy()),)).module()
        found = exported(torch.from_numpy(IMAGES[3:4].copy())).numpy()
    np.testing.assert_allclose(found, expected[3:4], atol=1e-5)


@pytest.mark.parametrize(
    ("how", "factors"),
    [
        (NEAREST.replace("floor", "ceil"), "{1, 1, 2, 4}"),
        (LINEAR.replace("half_pixel", "align_corners"), "{1, 1, 2, 4}"),
        (LINEAR.replace("linear", "cubic"), "{1, 1, 2, 4}"),
        (NEAREST, "{1, 1, 1.5, 1.5}"),
    ],
)
def test_other_ways_to_enlarge_are_refused(how: str, factors: str) -> None:
    with pytest.raises(StageFailed, match=r"the graph holds Resize \("):
        TorchGraph(resizing_graph(how, factors))(torch.from_numpy(IMAGES))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "decoder"), [(DETECTION, "topdown"), (SEGMENTATION, "topdown"), (SEGMENTATION, "lraspp")]
)
def test_networks_of_other_tasks_answer_the_same(task: Task, decoder: Decoder, tmp_path: Path) -> None:
    size = InputSize(height_px=64, width_px=96)
    scaling = Scaling(width=0.5, decoder=decoder)
    spec = scale(base_spec("resnet_scene"), scaling, resolution_px=size, num_classes=3)
    images = np.random.default_rng(0).standard_normal((3, 3, *size.sides), dtype=np.float32)
    network = fold_batchnorm(settle_norms(build(spec, task.make_module), images))
    model = to_onnx(network, to=tmp_path / "m.onnx", check_images=images, output_names=task.output_names)
    module = float_module(model, "litert")
    with torch.no_grad():
        ensure_same(model, images, module(torch.from_numpy(images)).numpy(), "litert")


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
