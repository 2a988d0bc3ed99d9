"""The detector: on every base network, of the right shapes, foldable, prunable, and beginning with no objects."""

from dataclasses import replace

import pytest
import torch

from scalesearch.compression.fold import fold_batchnorm, foldable_pairs
from scalesearch.compression.prune import prune
from scalesearch.errors import ConfigError
from scalesearch.measurement.cost import count_cost, formula_cost
from scalesearch.networks import BASES
from scalesearch.networks.build import build, outline
from scalesearch.networks.scaling import scale
from scalesearch.tasks.detection.decoding import strides_for
from scalesearch.tasks.detection.head import Detector
from scalesearch.tasks.detection.levels import levels_of
from scalesearch.tasks.detection.task import TASK
from scalesearch.values.candidate import Pruning, Scaling
from scalesearch.values.network_spec import InputSize, NetworkSpec, StageSpec

SIZE = InputSize(height_px=64, width_px=96)


def spec_of(name: str, *, width: float = 1.0, classes: int = 3) -> NetworkSpec:
    return scale(BASES[name](), Scaling(width=width), resolution_px=SIZE, num_classes=classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_every_base_network_becomes_a_detector(name: str) -> None:
    spec = spec_of(name, width=0.5)
    network = outline(spec, TASK.make_module)
    answers = network.module.eval()(torch.zeros(2, 3, *SIZE.sides, device="meta"))
    strides = tuple(levels_of(spec).values())
    points = sum(SIZE.pixels // stride**2 for stride in strides)
    assert answers.shape == (2, 3 + 5, points)
    assert strides_for(SIZE.sides, points) == strides
    assert strides[0] == 8


def test_a_detector_costs_what_fvcore_counts() -> None:
    network = build(spec_of("resnet_scene"), TASK.make_module)
    assert formula_cost(network) == count_cost(network)


def test_neck_and_heads_follow_the_width() -> None:
    channels = [
        outline(spec_of("resnet_scene", width=width), TASK.make_module).module.get_submodule("laterals.0").out_channels
        for width in (0.5, 1.0, 2.0)
    ]
    # The stage at stride 8 has 24, 40 and 80 channels; three quarters of these are rounded as all channels are.
    assert channels == [24, 32, 64]


def test_it_begins_by_answering_that_there_is_nothing() -> None:
    module = build(spec_of("resnet_scene"), TASK.make_module, seed=3).module.eval()
    answers = module(torch.randn(2, 3, *SIZE.sides, generator=torch.Generator().manual_seed(0))).detach()
    assert answers[:, 4:].sigmoid().mean() == pytest.approx(torch.tensor(-4.0).sigmoid().item(), rel=0.2)
    assert answers[:, :4].mean() == pytest.approx(1.0, abs=0.2)


def test_stages_behind_the_coarsest_map_are_not_built() -> None:
    base = spec_of("resnet_scene")
    deeper = replace(base, stages=(*base.stages, StageSpec(block="basic", depth=1, channels=128, kernel=3, stride=2)))
    module = outline(replace(deeper, resolution_px=64, width_px=128), TASK.make_module).module
    assert isinstance(module, Detector)
    assert len(module.stages) == len(base.stages)


def test_every_norm_can_be_folded_and_folding_changes_no_answer() -> None:
    network = build(spec_of("resnet_scene", width=0.5), TASK.make_module)
    norms = [layer for layer in network.module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    network.module.eval()
    assert len(foldable_pairs(network.module)) == len(norms)
    images = torch.randn(2, 3, *SIZE.sides, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(fold_batchnorm(network).module(images), network.module(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["resnet_scene", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mobilenet_v2", "efficientnet_small"))],
)
def test_channels_are_pruned_through_neck_and_heads_and_outputs_stay(name: str) -> None:
    network = build(spec_of(name, width=0.5), TASK.make_module)
    network.module.eval()
    smaller = prune(network, Pruning(channel_fraction=0.5), channel_multiple=4)
    assert smaller.module(torch.zeros(1, 3, *SIZE.sides)).shape == network.module(torch.zeros(1, 3, *SIZE.sides)).shape
    assert count_cost(smaller).macs < 0.6 * count_cost(network).macs
    for part in ("laterals.0", "heads.0.box_tower.0", "heads.0.class_tower.0"):
        before, after = (int(each.module.get_parameter(f"{part}.weight").shape[0]) for each in (network, smaller))
        assert after == 4 * round(before / 8)


def test_what_cannot_be_a_detector_is_refused() -> None:
    base = BASES["resnet_scene"]()
    with pytest.raises(ConfigError, match=r"expected sides that are multiples of 32 px.*came 40x96 px"):
        Detector(replace(base, resolution_px=40, width_px=96))
    flat = replace(base, stages=tuple(replace(stage, stride=1) for stage in base.stages))
    with pytest.raises(ConfigError, match="expected stages with a stride of 8, 16, 32"):
        Detector(flat)
    with pytest.raises(ConfigError, match="at least one class"):
        Detector(replace(base, num_classes=0))
