"""torchvision is the oracle: parameters, MACs and, with its weights, the very outputs."""

from dataclasses import dataclass

import pytest
import torch

from scalesearch.measurement.cost import count_cost, formula_cost
from scalesearch.networks import base_spec, scale
from scalesearch.tasks.classification.head import ImageClassifier
from scalesearch.tasks.classification.pieces import build
from scalesearch.values.candidate import Scaling
from scalesearch.values.network import Network

models = pytest.importorskip("torchvision.models", reason="torchvision (extra: datasets) is the oracle here")

FAMILIES = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0")


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficientNet:
    """Multipliers and resolution of one EfficientNet, from the paper's reference code."""

    name: str
    width: float
    depth: float
    resolution_px: int


EFFICIENTNETS = (
    EfficientNet(name="efficientnet_b1", width=1.0, depth=1.1, resolution_px=240),
    EfficientNet(name="efficientnet_b2", width=1.1, depth=1.2, resolution_px=260),
    EfficientNet(name="efficientnet_b3", width=1.2, depth=1.4, resolution_px=300),
    EfficientNet(name="efficientnet_b4", width=1.4, depth=1.8, resolution_px=380),
    EfficientNet(name="efficientnet_b5", width=1.6, depth=2.2, resolution_px=456),
    EfficientNet(name="efficientnet_b6", width=1.8, depth=2.6, resolution_px=528),
    EfficientNet(name="efficientnet_b7", width=2.0, depth=3.1, resolution_px=600),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "resnet50")) for name in FAMILIES]
)
def test_multiplier_one_costs_what_torchvision_costs(name: str) -> None:
    spec = scale(base_spec(name), Scaling(), resolution_px=224, num_classes=1000)
    oracle = Network(spec=spec, module=models.get_model(name, weights=None))
    assert count_cost(build(spec)) == count_cost(oracle)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=[pytest.mark.slow] * (case.depth > 1.3)) for case in EFFICIENTNETS]
)
def test_the_papers_multipliers_give_torchvisions_efficientnets(case: EfficientNet) -> None:
    scaling = Scaling(width=case.width, depth=case.depth)
    spec = scale(
        base_spec("efficientnet_b0"),
        scaling,
        resolution_px=case.resolution_px,
        num_classes=1000,
        resolution_multiple=1,
    )
    with torch.device("meta"):  # B7 has 66 million weights, and only their shapes matter
        ours = Network(spec=spec, module=ImageClassifier(spec))
        oracle = Network(spec=spec, module=models.get_model(case.name, weights=None))
    assert formula_cost(ours) == formula_cost(oracle)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_with_torchvisions_weights_the_outputs_are_torchvisions(name: str) -> None:
    # Equal counts could hide a misplaced stride, padding or activation; equal outputs cannot.
    torch.manual_seed(0)
    oracle = models.get_model(name, weights=None)
    for layer in oracle.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.8, 1.2)
            torch.nn.init.normal_(layer.bias, std=0.1)
            layer.momentum = None  # running statistics become the batch's own, so that signals keep their size
    batch = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        oracle(batch)
    oracle.eval()
    ours = build(scale(base_spec(name), Scaling(), resolution_px=64, num_classes=1000)).module.eval()
    keys = list(ours.state_dict())
    weights = list(oracle.state_dict().values())
    assert len(keys) == len(weights)
    ours.load_state_dict(dict(zip(keys, weights, strict=True)))
    with torch.no_grad():
        expected = oracle(batch)
        spread = expected.std(dim=0).mean()
        assert spread > 1e-3
        assert (ours(batch) - expected).abs().max() < 1e-3 * spread
