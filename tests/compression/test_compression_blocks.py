import logging
from dataclasses import replace

import pytest
import torch
from tiny_networks import BLOCK_KINDS, gratings, spread_norms, tiny_spec
from torch import Tensor, nn

from scalesearch.compression.blocks import built_stages, drop_blocks, droppable_blocks
from scalesearch.compression.prune import prune
from scalesearch.errors import StageFailed
from scalesearch.networks import BASES
from scalesearch.networks.build import build as build_for
from scalesearch.tasks.classification.pieces import build
from scalesearch.tasks.registry import get_task
from scalesearch.values.candidate import Pruning
from scalesearch.values.network import Network
from scalesearch.values.network_spec import BlockKind, StageSpec

IMAGES = torch.from_numpy(gratings(8, seed=4)[0])


def _network(block: BlockKind, *, depth: int = 4, stages: int = 1, stride: int = 2) -> Network:
    spec = tiny_spec(block, channels=32, stem=32 if stride == 1 else 16)
    stage = replace(spec.stages[0], depth=depth, stride=stride)
    network = build(replace(spec, stages=(stage,) * stages), seed=2)
    spread_norms(network.module)
    network.module.eval()
    return network


def _last_norm(network: Network, block: int) -> nn.BatchNorm2d:
    norms = [
        layer
        for layer in network.module.get_submodule(f"stages.0.{block}.body").modules()
        if isinstance(layer, nn.BatchNorm2d)
    ]
    return norms[-1]


def _make_idle(network: Network, block: int) -> None:
    """The body gives zero, so the block gives out what came in."""
    with torch.no_grad():
        _last_norm(network, block).weight.zero_()
        _last_norm(network, block).bias.zero_()


def _tensors(network: Network) -> list[Tensor]:
    return [tensor.clone() for tensor in network.module.state_dict().values()]


def _logits(network: Network) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network.module(IMAGES)
    return logits


@pytest.mark.parametrize("block", BLOCK_KINDS)
def test_an_idle_block_goes_first_and_nothing_changes(block: BlockKind) -> None:
    network = _network(block)
    _make_idle(network, 2)
    whole = _logits(network)
    before = _tensors(network)
    dropped = drop_blocks(network, 1 / 3, loss_without=lambda smaller: float((_logits(smaller) - whole).abs().mean()))
    assert dropped.spec.stages[0].depth == 3
    torch.testing.assert_close(_logits(dropped), whole)
    assert whole.std(dim=0).min() > 0
    assert all(torch.equal(a, b) for a, b in zip(before, _tensors(network), strict=True))
    assert network.spec.stages[0].depth == 4


@pytest.mark.parametrize("block", BLOCK_KINDS)
@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_left_is_built_from_its_spec(block: BlockKind, stride: int) -> None:
    network = _network(block, depth=2, stages=2, stride=stride)
    dropped = drop_blocks(network, 0.5, loss_without=lambda smaller: -float(_logits(smaller).sum()))
    assert sum(stage.depth for stage in dropped.spec.stages) == 4 - (1 if stride == 2 else 2)
    rebuilt = build(dropped.spec, seed=9)
    rebuilt.module.load_state_dict(dropped.module.state_dict())  # strict: every name and shape
    rebuilt.module.eval()
    assert torch.equal(_logits(rebuilt), _logits(dropped))
    assert not any(layer.training for layer in dropped.module.modules())


@pytest.mark.parametrize("block", BLOCK_KINDS)
def test_pruned_channels_and_dropped_blocks_go_together(block: BlockKind) -> None:
    pruned = prune(_network(block), Pruning(channel_fraction=0.5), channel_multiple=8)
    both = drop_blocks(pruned, 0.7, loss_without=lambda _: 0.0)
    assert both.spec.stages[0].depth == 2
    assert _logits(both).std(dim=0).min() > 0
    other_way = prune(
        drop_blocks(_network(block), 0.7, loss_without=lambda _: 0.0), Pruning(channel_fraction=0.5), channel_multiple=8
    )
    shapes = [{name: tensor.shape for name, tensor in each.module.state_dict().items()} for each in (both, other_way)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("base", "places"),
    [
        ("resnet_small", ()),  # one block a stage
        ("mobilenet_small", ((2, 1), (3, 1))),  # its first stage keeps the shape, but is all of its stage
        ("resnet18", ((0, 0), (0, 1), (1, 1), (2, 1), (3, 1))),  # stage 0 neither strides nor widens
        ("resnet50", tuple((stage, block) for stage, depth in enumerate((3, 4, 6, 3)) for block in range(1, depth))),
    ],
)
def test_blocks_that_keep_their_shape_can_go(base: str, places: tuple[tuple[int, int], ...]) -> None:
    assert droppable_blocks(build(BASES[base]())) == places


@pytest.mark.parametrize(("task", "built"), [("classification", 5), ("detection", 4), ("segmentation", 5)])
def test_blocks_of_stages_that_a_task_does_not_build_cannot_go(task: str, built: int) -> None:
    """A detector reads no map coarser than a stride of 32, so it has no stage at 64."""
    base = BASES["resnet_scene"]()
    coarsest = StageSpec(block="basic", depth=3, channels=48, kernel=3, stride=2)
    two = tuple(replace(stage, depth=2) for stage in base.stages)
    spec = replace(base, stages=(*two, coarsest), resolution_px=64, width_px=128, num_classes=4)
    network = build_for(spec, get_task(task).make_module)
    assert built_stages(network) == spec.stages[:built]
    assert {stage for stage, _ in droppable_blocks(network)} == set(range(built))
    dropped = drop_blocks(network, 1.0, loss_without=lambda _: 0.0)
    assert [stage.depth for stage in dropped.spec.stages] == [1] * built + [3] * (5 - built)
    rebuilt = build_for(dropped.spec, get_task(task).make_module)
    rebuilt.module.load_state_dict(dropped.module.state_dict())  # strict: every name and shape


def test_no_stage_is_emptied() -> None:
    network = _network("basic", depth=3, stages=2, stride=1)
    assert droppable_blocks(network) == tuple((stage, block) for stage in (0, 1) for block in range(3))
    dropped = drop_blocks(network, 1.0, loss_without=lambda _: 0.0)
    assert [stage.depth for stage in dropped.spec.stages] == [1, 1]
    assert droppable_blocks(dropped) == ()


@pytest.mark.parametrize(
    ("fraction", "dropped"), [(0.0, 0), (0.16, 0), (0.17, 1), (0.5, 1), (0.51, 2), (0.83, 2), (0.84, 3), (1.0, 3)]
)
def test_the_fraction_counts_blocks_and_a_tie_keeps_more(fraction: float, dropped: int) -> None:
    left = drop_blocks(_network("basic"), fraction, loss_without=lambda _: 0.0)
    assert left.spec.stages[0].depth == 4 - dropped


def test_what_is_left_is_measured_anew_after_every_block() -> None:
    """Blocks 1 and 2 stand in for each other: each alone is spared most easily, but not both."""
    network = _network("basic")
    marks = {float(_last_norm(network, block).bias[0].detach()): block for block in range(4)}
    losses = {(0, 2, 3): 1.0, (0, 1, 3): 2.0, (0, 1, 2): 3.0, (0, 3): 9.0, (0, 2): 4.0}
    asked = []

    def loss_without(smaller: Network) -> float:
        left = tuple(
            marks[float(_last_norm(smaller, block).bias[0].detach())] for block in range(smaller.spec.stages[0].depth)
        )
        asked.append(left)
        return losses[left]

    dropped = drop_blocks(network, 2 / 3, loss_without=loss_without)
    assert asked == [(0, 2, 3), (0, 1, 3), (0, 1, 2), (0, 3), (0, 2)]
    kept = [marks[float(_last_norm(dropped, block).bias[0].detach())] for block in range(2)]
    assert kept == [0, 2]


def test_a_network_that_overflows_is_the_worst() -> None:
    losses = iter([float("nan"), 5.0, float("nan")])
    dropped = drop_blocks(_network("basic"), 0.3, loss_without=lambda _: next(losses))
    expected = _network("basic")
    kept = [expected.module.get_submodule(f"stages.0.{block}") for block in (0, 1, 3)]
    for new, old in zip(dropped.module.get_submodule("stages.0").children(), kept, strict=True):
        assert torch.equal(new.get_parameter("body.0.0.weight"), old.get_parameter("body.0.0.weight"))


def test_nothing_to_drop_gives_the_network_itself_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    network = _network("basic", depth=1)
    with caplog.at_level(logging.INFO):
        assert drop_blocks(network, 0.9, loss_without=lambda _: 0.0) is network
    assert "no block dropped: 0.9 of the 0 droppable of tiny_basic is none" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert drop_blocks(network, 0.0, loss_without=lambda _: 0.0) is network
    assert not caplog.text


def test_the_mode_of_every_layer_is_kept() -> None:
    network = _network("basic")
    network.module.train()
    network.module.get_submodule("stages.0.1").eval()
    dropped = drop_blocks(network, 0.3, loss_without=lambda smaller: -float(smaller.spec.stages[0].depth))
    assert dropped.module.training
    assert dropped.module.get_submodule("stages.0").training


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(StageFailed, match=r"drop_blocks: block_fraction must be in \[0, 1\], got"):
        drop_blocks(_network("basic"), fraction, loss_without=lambda _: 0.0)
