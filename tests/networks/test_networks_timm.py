"""Weights of timm's networks are taken by timm's own names: the oracle is a stored list, and timm where it is there."""

import gzip
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from scalesearch.networks import base_spec
from scalesearch.networks.build import outline
from scalesearch.networks.foreign_names import FOREIGN, OF_TIMM
from scalesearch.networks.state_dicts import StateDict, class_count, mapped
from scalesearch.study.parent_sources import find_parent
from scalesearch.tasks.classification.pieces import build
from scalesearch.tasks.registry import DEFAULT, get_task
from scalesearch.values.network_spec import NetworkSpec

Shapes = Mapping[str, tuple[int, ...]]
NETWORKS = [(base, name) for base, names in OF_TIMM.items() for name in names]
CLASSES = 1000


@cache
def listed() -> Mapping[str, Shapes]:
    """Names and shapes of each network's tensors, in timm's order, by timm's name of the network."""
    text = gzip.decompress(Path(__file__).with_name("timm_state_dicts.txt.gz").read_bytes()).decode()
    found, shapes = dict[str, Shapes](), dict[str, tuple[int, ...]]()
    for line in text.splitlines():
        if line.startswith("["):  # equal networks share a list
            shapes = {}
            found |= dict.fromkeys(line.strip("[]").split(), shapes)
        elif line and not line.startswith("#"):
            name, _, sides = line.partition(" ")
            shapes[name] = tuple(map(int, sides.split("x"))) if sides else ()
    return found


def spec_for(base: str, name: str) -> NetworkSpec:
    """Our network that computes what timm's does: weights of TensorFlow have its padding and epsilon."""
    spec = replace(base_spec(base), num_classes=CLASSES)
    if not base.startswith("efficientnet"):
        return spec
    tensorflows = name.startswith("tf_")
    return replace(spec, padding="same" if tensorflows else "symmetric", norm_eps=1e-3 if tensorflows else 1e-5)


def numbered(shapes: Shapes) -> dict[str, Tensor]:
    """A state dict in which each tensor holds its own place in the list alone."""
    return {
        name: torch.full(shape, place, dtype=torch.float32 if shape else torch.int64)
        for place, (name, shape) in enumerate(shapes.items())
    }


def test_the_list_holds_every_network_of_timm_that_is_taken() -> None:
    assert set(listed()) == {name for _, name in NETWORKS}
    assert all(len(shapes) > 100 for shapes in listed().values())


@pytest.mark.parametrize(("base", "name"), NETWORKS)
def test_a_state_dict_of_timm_s_names_and_shapes_is_taken_whole_and_in_order(base: str, name: str) -> None:
    spec, state = spec_for(base, name), StateDict(tensors=numbered(listed()[name]), sha256="")
    assert class_count(state, spec) == CLASSES
    found = mapped(state, spec, outline(spec, get_task(DEFAULT).make_module).module, origin="file")
    assert found.library == ("timm" if "timm" in FOREIGN[base] else "torchvision")  # whose names a ResNet's are
    # Both libraries make layers in the order in which they compute, so equal shapes cannot have changed places.
    assert [int(each.flatten()[0]) for each in found.tensors.values()] == list(range(len(state.tensors)))


def test_a_file_of_timm_s_names_and_shapes_is_a_parent(tmp_path: Path) -> None:
    path = tmp_path / "mobilenetv2_100.ra_in1k.safetensors"
    save_file(numbered(listed()["mobilenetv2_100"]), path)
    found = find_parent(str(path), base_spec("mobilenet_v2"))
    assert (found.spec, found.untold) == (spec_for("mobilenet_v2", "mobilenetv2_100"), "")


@pytest.mark.parametrize(("base", "name"), NETWORKS)
def test_timm_s_networks_have_the_listed_names_and_their_weights_give_their_answers(base: str, name: str) -> None:
    timm = pytest.importorskip("timm", reason="timm (pip install timm) is the oracle here")
    torch.manual_seed(0)
    theirs: nn.Module = timm.create_model(name, pretrained=False, num_classes=CLASSES).eval()
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
    state = theirs.state_dict()
    assert {key: tuple(each.shape) for key, each in state.items()} == listed()[name]
    spec = spec_for(base, name)
    ours = build(spec).module.eval()
    ours.load_state_dict(mapped(StateDict(tensors=state, sha256=""), spec, ours, origin="file").tensors)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(images)
        assert float((ours(images) - expected).abs().max()) < 1e-4 * float(expected.abs().max())
