"""What a child inherits: everything in the parent's own shape, the important parts of it in a smaller one."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from scalesearch.compression.importance import Judged
from scalesearch.compression.inherit import inherit, kinship
from scalesearch.compression.kept_entries import kept_moments, numbered
from scalesearch.networks import base_spec, scale
from scalesearch.networks.build import build as build_for
from scalesearch.tasks.classification.pieces import build
from scalesearch.tasks.registry import get_task
from scalesearch.values.candidate import Scaling, StageScaling
from scalesearch.values.network import Network
from scalesearch.values.network_spec import StageSpec

SIDE = 32
BASES = ("resnet_small", "mobilenet_small", "efficientnet_small")


def made(name: str, scaling: Scaling, *, seed: int, side: int = SIDE) -> Network:
    network = build(scale(base_spec(name), scaling, resolution_px=side, num_classes=5), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in network.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, generator=generator)
    network.module.eval()
    return network


def images(count: int = 4, side: int = SIDE) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def judged(side: int = SIDE) -> Judged:
    return Judged(images=images(8, side), targets=torch.arange(8) % 5, loss=nn.functional.cross_entropy)


def inherited(parent: Network, child: Network, follower: nn.Module | None = None) -> Network:
    side = child.spec.resolution_px

    def loss(network: Network) -> float:
        with torch.inference_mode():
            return float(nn.functional.cross_entropy(network.module(images(8, side)), torch.arange(8) % 5))

    return inherit(parent, child, judged=judged(side), loss_without=loss, follower=follower)


def answers(network: Network, side: int = SIDE) -> Tensor:
    with torch.inference_mode():
        return network.module.eval()(images(side=side))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("side", [SIDE, 2 * SIDE])
def test_a_child_of_the_parents_own_shape_is_bit_equal(name: str, side: int) -> None:
    parent, child = made(name, Scaling(), seed=1), made(name, Scaling(), seed=2, side=side)
    held = inherited(parent, child).module.state_dict()
    assert all(torch.equal(held[key], each) for key, each in parent.module.state_dict().items())


@pytest.mark.parametrize("name", BASES)
def test_what_is_larger_begins_without_effect(name: str) -> None:
    parent = made(name, Scaling(), seed=1)
    larger = inherited(parent, made(name, Scaling(width=1.5, depth=2, kernel=1.67), seed=2))
    assert torch.allclose(answers(larger), answers(parent), atol=1e-5)
    assert larger.spec.stages[-1].depth > parent.spec.stages[-1].depth


@pytest.mark.parametrize("name", ["mobilenet_small", "efficientnet_small"])
@pytest.mark.parametrize(("stage", "alike"), [(1, False), (2, True), (3, False)])
def test_a_larger_stage_has_an_effect_only_where_a_shortcut_comes_or_goes(
    name: str, stage: int, *, alike: bool
) -> None:
    """Stage 1 loses the shortcut of its first block; where stage 3 is as wide as stage 4, this one gains such."""
    parent = made(name, Scaling(), seed=1)
    stages = tuple(StageScaling(width=2.0 if number == stage else 1.0) for number in range(1, 5))
    larger = inherited(parent, made(name, Scaling(stages=stages), seed=2))
    assert torch.allclose(answers(larger), answers(parent), atol=1e-5) is alike


def test_neither_network_is_changed() -> None:
    parent, child = made("mobilenet_small", Scaling(), seed=1), made("mobilenet_small", Scaling(width=0.5), seed=2)
    before = [each.clone() for each in (*parent.module.state_dict().values(), *child.module.state_dict().values())]
    inherited(parent, child)
    after = (*parent.module.state_dict().values(), *child.module.state_dict().values())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "scaling",
    [
        Scaling(width=0.5, depth=0.5, kernel=0.6),
        Scaling(width=0.1),
        Scaling(stages=(StageScaling(width=0.5), StageScaling(width=2), StageScaling(width=0.5, depth=2))),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "efficientnet_small")) for name in BASES]
)
def test_every_shape_of_a_space_can_be_inherited(name: str, scaling: Scaling) -> None:
    child = made(name, scaling, seed=2)
    network = inherited(made(name, Scaling(depth=2, width=2), seed=1), child)
    assert network.spec == child.spec and network.module.training
    shapes = {key: each.shape for key, each in child.module.state_dict().items()}
    assert {key: each.shape for key, each in network.module.state_dict().items()} == shapes
    assert answers(network).shape == (4, 5)


def test_channels_that_do_nothing_leave_first() -> None:
    # Half of the head's channels reach no class: Taylor's term is 0 for them, whatever the size of their own weights.
    parent = made("efficientnet_small", Scaling(), seed=1)
    classifier = parent.module.get_submodule("classifier")
    assert isinstance(classifier, nn.Linear)
    idle = torch.arange(classifier.in_features) % 2 == 0
    with torch.no_grad():
        classifier.weight[:, idle] = 0
    kept = inherited(parent, made("efficientnet_small", Scaling(width=0.5), seed=2)).module.get_submodule("classifier")
    assert isinstance(kept, nn.Linear)
    assert torch.equal(kept.weight, classifier.weight[:, ~idle])


def test_the_block_whose_absence_costs_least_is_left_out() -> None:
    parent = made("resnet_small", Scaling(depth=3), seed=1)
    idle = parent.module.get_submodule("stages.2.1.body.1.1")
    assert isinstance(idle, nn.BatchNorm2d)
    with torch.no_grad():  # this block adds nothing
        idle.weight.zero_()
        idle.bias.zero_()
    have = [stage.depth for stage in parent.spec.stages]
    stages = tuple(replace(each, depth=each.depth - (place == 2)) for place, each in enumerate(parent.spec.stages))
    child = build(replace(parent.spec, stages=stages), seed=2)
    expected = answers(parent)
    smaller = inherit(parent, child, judged=judged(), loss_without=lambda network: distance(network, expected))
    assert [stage.depth for stage in smaller.spec.stages] == [*have[:2], have[2] - 1]
    assert torch.allclose(answers(smaller), expected, atol=1e-6)


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
@pytest.mark.parametrize("depth", [1, 3], ids=["shallower", "deeper"])
def test_stages_that_a_task_does_not_build_are_passed_over(task: str, depth: int) -> None:
    """A detector reads no map coarser than a stride of 32, so it has no stage at 64."""
    base, make_module = base_spec("resnet_scene"), get_task(task).make_module
    last = StageSpec(block="basic", depth=2, channels=48, kernel=3, stride=2)
    parent_spec, spec = (
        replace(
            base, stages=(*(replace(each, depth=have) for each in base.stages), replace(last, depth=have)),
            resolution_px=64, width_px=128, num_classes=5,
        )
        for have in (2, depth)
    )  # fmt: skip
    parent, child = build_for(parent_spec, make_module, seed=1), build_for(spec, make_module, seed=2)
    follower = numbered(parent.module)
    heir = inherit(parent, child, judged=judged(), loss_without=lambda _: 0.0, follower=follower)
    assert heir.spec == spec
    assert heir.module.state_dict().keys() == child.module.state_dict().keys()
    kept = "stages.3.0.body.0.0.weight"
    assert torch.equal(heir.module.state_dict()[kept], parent.module.state_dict()[kept])


def distance(network: Network, expected: Tensor) -> float:
    return float((answers(network) - expected).abs().mean())


def test_kernels_are_cropped_at_their_centre() -> None:
    parent, child = (made("mobilenet_small", Scaling(kernel=kernel), seed=1) for kernel in (1.67, 1.0))
    kept = inherited(parent, child).module.state_dict()
    name = "stages.2.0.body.1.0.weight"
    assert parent.module.state_dict()[name].shape[-1] == 5
    assert torch.equal(kept[name], parent.module.state_dict()[name][..., 1:4, 1:4])


def test_kin_differ_in_scaling_alone() -> None:
    base = base_spec("mobilenet_small")
    assert kinship(scale(base, Scaling(width=2, depth=2, kernel=1.67), resolution_px=32, num_classes=9), base) == ""
    assert kinship(base, base_spec("resnet_small")) == "it has 4 stages, the space's network has 3"
    assert "padding is 'same'" in kinship(replace(base, padding="same"), base)
    assert "norm_eps is 0.001" in kinship(replace(base, norm_eps=1e-3), base)
    unlike = replace(base, stages=(replace(base.stages[0], stride=2), *base.stages[1:]))
    assert kinship(unlike, base).startswith("its stages.1 is ")


CHANGED = [
    Scaling(width=0.5),
    Scaling(width=0.5, depth=0.5, kernel=0.6),
    Scaling(width=3, depth=3, kernel=2.4),  # larger: new entries have no moments
    # shortcuts of the child alone
    Scaling(stages=(StageScaling(width=0.5), StageScaling(width=2), StageScaling(width=0.5, depth=2))),
]


@pytest.mark.slow
@pytest.mark.parametrize("scaling", CHANGED, ids=str)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "mobilenet_small")) for name in BASES]
)
def test_moments_follow_every_weight_that_is_inherited(name: str, scaling: Scaling) -> None:
    """With the weights themselves as moments, each kept entry's moment is the entry, and that of a new one is 0."""
    parent, child = made(name, Scaling(depth=2, width=2, kernel=1.67), seed=1), made(name, scaling, seed=2)
    for module in (parent.module, child.module):
        for parameter in module.parameters():  # no two entries are alike, and none is 0
            nn.init.uniform_(parameter, 1.0, 2.0)
    moments = {key: {"momentum": each.detach().clone()} for key, each in parent.module.named_parameters()}
    moments["stem.0.weight"]["step"] = torch.tensor(7.0)
    follower = numbered(parent.module)

    held = dict(inherited(parent, child, follower).module.named_parameters())
    kept = {key: each for key, each in kept_moments(moments, parent.module, follower).items() if key in held}

    fresh, old, entries = dict(child.module.named_parameters()), dict(parent.module.named_parameters()), 0
    assert kept["stem.0.weight"]["step"] == 7
    for key, each in held.items():
        if key not in kept:  # new as a whole: a block or a shortcut
            assert key not in old or each.shape != old[key].shape, key
            continue
        momentum = kept[key]["momentum"]
        is_old = momentum != 0
        assert torch.equal(momentum[is_old], each[is_old])
        assert torch.equal(each[~is_old], fresh[key][~is_old].where(each[~is_old] != 0, torch.tensor(0.0)))
        entries += int(is_old.sum())
    smaller = all(one <= 1 for one in (scaling.width, scaling.depth, scaling.kernel)) and not scaling.stages
    assert entries == sum(each.numel() for each in held.values()) if smaller else entries > 0
