"""MACs and parameters: fvcore equals the formula, on dense and on pruned networks, and nothing is disturbed."""

import logging
import warnings
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from scalesearch.measurement.cost import count_cost, formula_cost
from scalesearch.networks import BASES, base_spec, scale
from scalesearch.tasks.classification.pieces import build
from scalesearch.values.candidate import Scaling
from scalesearch.values.network import Network
from scalesearch.values.record import Cost

SCALINGS = (
    Scaling(resolution=0.5, width=0.25),
    Scaling(width=0.3, depth=1.5, kernel=1.67),
    Scaling(resolution=1.5, depth=0.5, width=0.5),
)


@pytest.mark.parametrize("scaling", SCALINGS, ids=["half resolution", "deep 5x5", "large image"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * ("small" not in name)) for name in BASES]
)
def test_fvcore_equals_the_formula(name: str, scaling: Scaling) -> None:
    network = build(scale(base_spec(name), scaling, resolution_px=64, num_classes=7))
    assert count_cost(network) == formula_cost(network)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCase:
    """One layer and its MACs on an 8 px image of 4 channels, worked out by hand."""

    id: str
    layer: nn.Module
    macs: int
    params: int


LAYERS = (
    LayerCase(id="3x3", layer=nn.Conv2d(4, 6, 3, padding=1), macs=6 * 64 * 9 * 4, params=6 * 4 * 9 + 6),
    LayerCase(id="strided", layer=nn.Conv2d(4, 6, 3, stride=2, padding=1), macs=6 * 16 * 9 * 4, params=222),
    LayerCase(id="grouped", layer=nn.Conv2d(4, 8, 3, padding=1, groups=2), macs=8 * 64 * 9 * 2, params=152),
    LayerCase(id="depthwise", layer=nn.Conv2d(4, 4, 5, padding=2, groups=4), macs=4 * 64 * 25, params=104),
    LayerCase(id="linear", layer=nn.Sequential(nn.Flatten(), nn.Linear(256, 10)), macs=2560, params=2570),
    LayerCase(
        id="norm and pool are free",
        layer=nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2), nn.AvgPool2d(2)),
        macs=2 * 64 * 4,
        params=14,
    ),
)


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.id)
def test_single_layers_by_hand(case: LayerCase) -> None:
    spec = replace(base_spec("resnet_small"), resolution_px=8, image_channels=4)
    # fvcore reports an operator only where there is one; a network always has both.
    network = Network(spec=spec, module=case.layer)
    assert formula_cost(network) == Cost(macs=case.macs, params=case.params)
    assert count_cost(network) == Cost(macs=case.macs, params=case.params)


def test_a_layer_that_runs_twice_counts_twice() -> None:
    layer = nn.Conv2d(3, 3, 3, padding=1)
    spec = replace(base_spec("resnet_small"), resolution_px=8)
    network = Network(spec=spec, module=nn.Sequential(layer, nn.ReLU(), layer))
    assert formula_cost(network) == count_cost(network) == Cost(macs=2 * 3 * 64 * 9 * 3, params=84)


@pytest.mark.parametrize("name", ["resnet_small", "efficientnet_small"])
def test_a_pruned_module_is_counted_as_it_is(name: str) -> None:
    network = build(base_spec(name))
    pruned = pruned_by_half(network)
    dense_cost, cost = formula_cost(network), formula_cost(pruned)
    assert cost == count_cost(pruned)
    assert cost.macs < 0.5 * dense_cost.macs
    assert cost.params == sum(weight.numel() for weight in pruned.module.parameters())


def pruned_by_half(network: Network) -> Network:
    torch_pruning = pytest.importorskip("torch_pruning")
    module = build(network.spec).module.eval()
    torch_pruning.pruner.MagnitudePruner(
        module,
        torch.zeros(1, 3, network.spec.resolution_px, network.spec.resolution_px),
        importance=torch_pruning.importance.MagnitudeImportance(),
        pruning_ratio=0.5,
        round_to=8,
        ignored_layers=[module.classifier],
    ).step()
    return replace(network, module=module)


@pytest.mark.parametrize("count", [formula_cost, count_cost], ids=lambda count: count.__name__)
def test_the_network_is_left_as_it_was(count: object) -> None:
    assert callable(count)
    network = build(base_spec("efficientnet_small"))
    before = {key: tensor.clone() for key, tensor in network.module.state_dict().items()}
    count(network)
    assert network.module.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.module.state_dict().items())
    assert all(not layer._forward_hooks for layer in network.module.modules())
    assert {weight.device.type for weight in network.module.parameters()} == {"cpu"}
    network.module.eval()
    count(network)
    assert not network.module.training


def test_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as heard, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        count_cost(build(base_spec("mobilenet_small")))
    assert [str(warning.message) for warning in heard] == []
    assert [record.message for record in caplog.records if "fvcore" in record.name] == []


def test_fvcores_logger_is_given_back() -> None:
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    before = logger.level
    count_cost(build(base_spec("resnet_small")))
    assert logger.level == before


def test_size_of_the_weights_is_four_bytes_each() -> None:
    assert formula_cost(build(base_spec("resnet18"))).fp32_size_bytes == 4 * 11_689_512
