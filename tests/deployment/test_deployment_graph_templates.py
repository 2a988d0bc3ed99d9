"""Networks of one structure share a traced graph; each gets the bytes that torch's own exporter would give."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.prune import prune
from scalesearch.deployment import to_onnx as exporter
from scalesearch.deployment.graph_templates import GraphTemplates, Structure, structure_of
from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.errors import StageFailed
from scalesearch.networks import find_spec
from scalesearch.networks.scaling import scale
from scalesearch.tasks.classification.pieces import build, to_onnx
from scalesearch.values.candidate import Pruning, Scaling
from scalesearch.values.network import Network
from scalesearch.values.network_spec import HeadSpec, NetworkSpec, StemSpec


def deployed(
    name: str, *, width: float = 1.0, px: int = 64, depth: float = 1.0, cut: float = 0.0, seed: int = 0
) -> Network:
    """A network as it is deployed, its norms folded; they are made unlike those of a fresh network, as if trained."""
    scaling = Scaling(width=width, depth=depth)
    network = build(scale(find_spec(name), scaling, resolution_px=px, num_classes=5), dropout=0.1, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in network.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            nn.init.uniform_(layer.bias, 0.1, 1.0, generator=generator)
            layer.running_mean.uniform_(-1, 1, generator=generator)
    network.module.eval()
    if cut:
        network = prune(network, Pruning(channel_fraction=cut), channel_multiple=1)
    return fold_batchnorm(network)


def images(network: Network) -> np.ndarray:
    shape = (4, network.spec.image_channels, *network.spec.input_size.sides)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the networks that torch's exporter traced, and no graph kept by earlier tests."""
    done, export = list[str](), exporter._exported
    monkeypatch.setattr(exporter, "_TEMPLATES", GraphTemplates())

    def counted(module: nn.Module, *rest: object) -> object:
        done.append(type(module).__name__)
        return export(module, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(exporter, "_exported", counted)
    return done


def written(network: Network, to: Path) -> bytes:
    to_onnx(network, to=to, check_images=images(network))
    return to.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "resnet_small",
        pytest.param("mobilenet_small", marks=pytest.mark.slow),
        pytest.param("efficientnet_small", marks=pytest.mark.slow),
        pytest.param("efficientnet_lite0", marks=pytest.mark.slow),
        pytest.param("resnet50", marks=pytest.mark.slow),
    ],
)
def test_other_weights_widths_and_sizes_give_the_bytes_of_torchs_export(
    name: str, tmp_path: Path, traced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written(deployed(name), tmp_path / "first.onnx")
    assert len(traced) == 1
    other = deployed(name, width=0.5, px=96, cut=0.25, seed=1)
    shared = written(other, tmp_path / "other.onnx")
    assert len(traced) == 1

    monkeypatch.setattr(exporter, "_TEMPLATES", GraphTemplates())
    assert written(other, tmp_path / "anew.onnx") == shared
    assert len(traced) == 2


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lambda data: data, lambda data: data[:-1], lambda data: b"x" + data[1:]])
def test_processes_share_what_torch_traced_by_a_folder(
    damage: Callable[[bytes], bytes], tmp_path: Path, traced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs, first, other = tmp_path / "graphs", deployed("resnet_small"), deployed("resnet_small", width=0.5, seed=1)
    to_onnx(first, to=tmp_path / "first.onnx", check_images=images(first), graphs=graphs)
    (file,) = graphs.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    whole = damage(b"whole") == b"whole"

    monkeypatch.setattr(exporter, "_TEMPLATES", GraphTemplates())  # as another process has none yet
    to_onnx(other, to=tmp_path / "other.onnx", check_images=images(other), graphs=graphs)

    assert len(traced) == (1 if whole else 2)
    if whole:
        monkeypatch.setattr(exporter, "_TEMPLATES", GraphTemplates())
        assert written(other, tmp_path / "anew.onnx") == (tmp_path / "other.onnx").read_bytes()


@pytest.mark.slow
def test_another_depth_or_a_bias_of_zeros_is_another_graph(tmp_path: Path, traced: list[str]) -> None:
    written(deployed("resnet_small"), tmp_path / "one.onnx")
    written(deployed("resnet_small", depth=2), tmp_path / "two.onnx")
    assert len(traced) == 2
    without = deployed("resnet_small")
    nn.init.zeros_(without.module.get_parameter("stem.0.bias"))
    written(without, tmp_path / "three.onnx")
    assert len(traced) == 3
    biases = [len(node.input) == 3 for node in read_onnx(tmp_path / "three.onnx").graph.node if node.op_type == "Conv"]
    assert not biases[0] and all(biases[1:])  # torch leaves it out


class _Odd(nn.Module):
    """A module whose graph depends on more than its layers."""

    def __init__(self, how: str, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.how = how
        self.conv = nn.Conv2d(3, 4, 3)
        self.scale = nn.Parameter(torch.randn(4, 1, 1))
        self.linear = nn.Linear(16, 5)
        if how == "function":
            self.act = torch.tanh
        if how == "unstored":
            self.register_buffer("offset", torch.randn(4, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        kernel = self.conv.weight * 2 if self.how == "computed" else self.conv.weight
        maps = nn.functional.conv2d(pictures, kernel, self.conv.bias) * self.scale
        maps = self.act(maps) if self.how == "function" else maps
        maps = maps + self.get_buffer("offset") if self.how == "unstored" else maps
        return self.linear(nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1))  # type: ignore[no-any-return]


def odd(how: str, px: int = 16, seed: int = 0) -> Network:
    spec = NetworkSpec(
        name="odd",
        resolution_px=px,
        num_classes=5,
        stem=StemSpec(channels=4, kernel=3, stride=1),
        stages=(),
        head=HeadSpec(),
    )
    return Network(spec=spec, module=_Odd(how, seed).eval())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "again"),
    [
        ("plain", False),
        ("computed", True),
        pytest.param("function", True, marks=pytest.mark.slow),
        pytest.param("unstored", True, marks=pytest.mark.slow),
    ],
)
def test_a_graph_with_something_computed_or_unknown_in_it_is_traced_again(
    how: str, again: bool, tmp_path: Path, traced: list[str]
) -> None:
    written(odd(how), tmp_path / "a.onnx")
    written(odd(how, seed=1), tmp_path / "b.onnx")
    assert len(traced) == 1 + again


@pytest.mark.slow
def test_what_depends_on_the_size_is_shared_at_one_size_only(tmp_path: Path, traced: list[str]) -> None:
    written(odd("plain"), tmp_path / "a.onnx")  # it pools by windows that grow with the image
    written(odd("plain", px=24), tmp_path / "b.onnx")
    assert len(traced) == 2


@pytest.mark.slow
def test_hooks_and_equal_weights_are_traced_again(tmp_path: Path, traced: list[str]) -> None:
    hooked = odd("plain")
    hooked.module.get_submodule("conv").register_forward_hook(lambda *_: None)
    written(hooked, tmp_path / "a.onnx")
    equal = deployed("resnet_small", depth=2)
    weights = equal.module.state_dict()
    weights["stages.0.1.body.1.0.weight"].copy_(weights["stages.0.1.body.0.0.weight"])
    written(equal, tmp_path / "b.onnx")
    assert not exporter._TEMPLATES._kept
    assert len(traced) == 2


def test_a_kept_graph_that_answers_otherwise_is_not_used(
    tmp_path: Path, traced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, found = odd("plain"), list[object]()
    wrong = GraphTemplates()
    written(network, tmp_path / "a.onnx")
    other = odd("plain", seed=1)
    structure = structure_of(network.module, torch.from_numpy(images(network)), asked=repr(("logits",)) + " 18")
    kept = structure and exporter._TEMPLATES.find(structure)

    def find(*_: object, **__: object) -> object:
        found.append(1)
        return kept

    monkeypatch.setattr(wrong, "find", find)
    monkeypatch.setattr(exporter, "_TEMPLATES", wrong)
    right = written(other, tmp_path / "b.onnx")
    assert found and kept is not None and len(traced) == 2
    assert right != (tmp_path / "a.onnx").read_bytes()


@pytest.mark.slow
def test_the_graph_kept_longest_unused_goes_first() -> None:
    templates, structures = GraphTemplates(most=2), list[Structure]()
    for px in (8, 12, 16):
        network = odd("plain", px)
        pictures = torch.from_numpy(images(network))
        structure = structure_of(network.module, pictures)
        assert structure
        structures.append(structure)
        templates.keep(exporter._exported(network.module, pictures, 18, ("logits",)), structure)
        assert templates.find(structures[0]) is not None
    assert [templates.find(each) is not None for each in structures] == [True, False, True]


def test_a_failed_export_keeps_nothing(tmp_path: Path, traced: list[str]) -> None:
    network = deployed("resnet_small")
    network = replace(network, module=network.module.train())
    with pytest.raises(StageFailed, match="training mode"):
        to_onnx(network, to=tmp_path / "a.onnx", check_images=images(network))
    assert not traced and not exporter._TEMPLATES._kept
