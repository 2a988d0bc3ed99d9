"""A layer that a module has registered twice is replaced under both names, and its weights have one that is told."""

import torch
from own_modules import Twice
from torch import nn

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.registered_layers import first_names, replace_layer_everywhere
from scalesearch.values.network import Network
from scalesearch.values.network_spec import HeadSpec, NetworkSpec, StemSpec

SPEC = NetworkSpec(
    name="twice",
    resolution_px=32,
    num_classes=10,
    stem=StemSpec(channels=0, kernel=0, stride=0),
    stages=(),
    head=HeadSpec(),
    origin="own_modules:twice",
)


def test_all_names_of_a_layer_give_the_new_one_and_others_stay() -> None:
    old, other, new = nn.Linear(2, 2), nn.Linear(2, 2), nn.Identity()
    net = nn.ModuleDict({"first": old, "inner": nn.Sequential(old, other), "other": other})
    replace_layer_everywhere(net, "first", new)
    assert [net.get_submodule(name) for name in ("first", "inner.0", "inner.1", "other")] == [new, new, other, other]


def test_other_names_of_weights_lead_to_the_one_that_torch_lists() -> None:
    module = Twice()
    names = first_names(module)
    assert names == {
        "body.stem.1.weight": "norm.weight",
        "body.stem.1.bias": "norm.bias",
        "body.fc.weight": "fc.weight",
        "body.fc.bias": "fc.bias",
    }
    assert set(names.values()) <= {name for name, _ in module.named_parameters()}
    assert first_names(module.get_submodule("body")) == {}


def test_a_norm_of_two_names_is_folded_once() -> None:
    torch.manual_seed(0)
    module = Twice()
    norm = module.get_submodule("norm")
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    module.eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        folded = fold_batchnorm(Network(spec=SPEC, module=module)).module
        assert torch.allclose(folded(images), module(images), atol=1e-4)
    assert isinstance(folded.get_submodule("norm"), nn.Identity)
    assert isinstance(folded.get_submodule("body.stem.1"), nn.Identity)
