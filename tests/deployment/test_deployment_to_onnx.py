import dataclasses
import hashlib
import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scalesearch.deployment.to_onnx import annotate, onnx_model
from scalesearch.errors import StageFailed
from scalesearch.tasks.classification.pieces import build, to_onnx
from scalesearch.values.network import Network
from scalesearch.values.network_spec import HeadSpec, NetworkSpec, StageSpec, StemSpec

_SPEC = NetworkSpec(
    name="tiny",
    resolution_px=16,
    num_classes=5,
    stem=StemSpec(channels=8, kernel=3, stride=2),
    stages=(StageSpec(block="mbconv", depth=1, channels=16, kernel=3, stride=2, expansion=2),),
    head=HeadSpec(),
    activation="silu",
)
_IMAGES = np.random.default_rng(0).normal(size=(6, 3, 16, 16)).astype(np.float32)


def _network() -> Network:
    network = build(_SPEC, dropout=0.2, seed=0)
    generator = torch.Generator().manual_seed(0)
    for layer in network.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.05, 0.2, generator=generator)
    network.module.eval()
    return network


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some tests only look at the file."""
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    to_onnx(_network(), to=path, check_images=_IMAGES)
    return path


def test_the_file_answers_as_torch_does_at_any_batch(exported: Path) -> None:
    session = ort.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).normal(size=(7, 3, 16, 16)).astype(np.float32)
    with torch.no_grad():
        expected = _network().module(torch.from_numpy(images)).numpy()
    assert expected.std(axis=0).mean() > 1e-3 * np.abs(expected).max()
    for count in (1, 2, 7):
        logits = session.run(["logits"], {"image": images[:count]})[0]
        np.testing.assert_allclose(logits, expected[:count], atol=1e-4 * expected.std())


def test_names_types_and_shapes(exported: Path) -> None:
    proto = onnx.load(exported)
    (image,), (logits,) = proto.graph.input, proto.graph.output
    assert (image.name, logits.name) == ("image", "logits")
    assert [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim] == ["batch", 3, 16, 16]
    assert [dim.dim_param or dim.dim_value for dim in logits.type.tensor_type.shape.dim] == ["batch", 5]
    youngest = max(onnx.defs.get_schema(node.op_type, 18).since_version for node in proto.graph.node)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", youngest)]
    assert proto.ir_version <= 8  # what ONNX Runtime 1.14 reads
    onnx.checker.check_model(proto, full_check=True)


def test_every_pool_is_a_global_average_pool_and_no_constant_is_left_over(exported: Path) -> None:
    graph = onnx.load(exported).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("GlobalAveragePool") == 2  # squeeze-and-excitation, and before the classifier
    assert "ReduceMean" not in kinds
    assert {tensor.name for tensor in graph.initializer} <= {name for node in graph.node for name in node.input}


def test_the_value_describes_the_file(exported: Path) -> None:
    model = onnx_model(exported)
    content = exported.read_bytes()
    assert model.sha256 == hashlib.sha256(content).hexdigest()
    assert model.size_bytes == len(content)
    assert model.input_shape == (1, 3, 16, 16)
    assert model.path == exported


@pytest.mark.slow
def test_an_equal_network_gives_equal_bytes_in_silence_and_is_untouched(
    exported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    network = _network()
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    with caplog.at_level(logging.INFO):
        again = to_onnx(network, to=tmp_path / "new" / "model.onnx", check_images=_IMAGES)
    captured = capfd.readouterr()
    assert captured.out + captured.err + caplog.text == ""
    assert again.sha256 == onnx_model(exported).sha256
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.onnx"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.module.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.module.parameters())


def test_no_path_of_this_machine_is_inside(exported: Path) -> None:
    content = exported.read_bytes()
    for path in (Path(torch.__file__).parent, Path(__file__).parent, Path.home()):
        assert str(path).encode() not in content


def test_training_mode_is_refused_even_of_one_layer(tmp_path: Path) -> None:
    network = _network()
    network.module.get_submodule("dropout").train()
    with pytest.raises(StageFailed, match=r"export: tiny is in training mode: call module\.eval\(\) first"):
        to_onnx(network, to=tmp_path / "model.onnx", check_images=_IMAGES)


@pytest.mark.parametrize("images", [np.repeat(_IMAGES[:1], 4, axis=0), _IMAGES[:1]], ids=["equal", "one"])
def test_answers_that_do_not_spread_are_refused(tmp_path: Path, images: NDArray[np.float32]) -> None:
    with pytest.raises(StageFailed, match="answers nearly the same to all"):
        to_onnx(_network(), to=tmp_path / "model.onnx", check_images=images)
    assert not list(tmp_path.iterdir())


def test_answers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = _network()
    with torch.no_grad():
        next(network.module.parameters())[0] = float("nan")
    with pytest.raises(StageFailed, match="answers to the check images are not finite"):
        to_onnx(network, to=tmp_path / "model.onnx", check_images=_IMAGES)


class _OtherWhenTraced(nn.Module):
    """Adds a twentieth to its answer under the exporter's trace only: a stand-in for any fault of an exporter."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits * 1.05 if torch.compiler.is_exporting() else logits


@pytest.mark.slow
def test_a_file_that_answers_otherwise_than_torch_is_refused(tmp_path: Path) -> None:
    network = dataclasses.replace(_network(), module=_OtherWhenTraced(_network().module).eval())
    with pytest.raises(StageFailed, match="ONNX Runtime answers otherwise than torch: by"):
        to_onnx(network, to=tmp_path / "model.onnx", check_images=_IMAGES)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_a_clear_failure(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StageFailed, match="cannot be written"):
        annotate(onnx_model(exported), {}, tmp_path / "file" / "model.onnx")


def test_annotations_are_added_replaced_and_read_back(exported: Path, tmp_path: Path) -> None:
    model = onnx_model(exported)
    first = annotate(model, {"classes": "a,b", "mean": "0.5"}, tmp_path / "first.onnx")
    second = annotate(first, {"mean": "0.4"}, tmp_path / "second.onnx")
    session = ort.InferenceSession(str(second.path), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"classes": "a,b", "mean": "0.4"}
    assert len({model.sha256, first.sha256, second.sha256}) == 3
    expected = ort.InferenceSession(str(exported)).run(None, {"image": _IMAGES})[0]
    assert np.array_equal(session.run(None, {"image": _IMAGES})[0], expected)


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x00" * 64, None])
def test_what_is_not_an_onnx_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StageFailed, match=r"broken\.onnx"):
        onnx_model(path)
