import logging
from dataclasses import replace
from typing import get_args

import pytest
import torch
from tiny_networks import BLOCK_KINDS, gratings, tiny_network, tiny_spec
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scalesearch.compression.channels_left import channels_left
from scalesearch.compression.importance import Evidence
from scalesearch.compression.kept_entries import numbered
from scalesearch.compression.prune import LayerShares, prunable_widths, prune
from scalesearch.errors import StageFailed
from scalesearch.networks import find_spec
from scalesearch.networks.own_module import own_module
from scalesearch.tasks.classification.pieces import build, judged
from scalesearch.values.candidate import Criterion, Pruning, PruningScope
from scalesearch.values.network import Network
from scalesearch.values.network_spec import BlockKind, HeadSpec, NetworkSpec, StageSpec, StemSpec

CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
SCOPES: tuple[PruningScope, ...] = get_args(PruningScope)
BODY = "stages.0.0.body.0.0"
"""First layer of a group of three in the basic network: convolution, BatchNorm, and the convolution that reads it."""


def _batch() -> tuple[Tensor, Tensor]:
    images, labels = gratings(48, seed=5)
    return torch.from_numpy(images), torch.from_numpy(labels)


def _body(network: Network) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]:
    convolution, norm, reader = (
        network.module.get_submodule(f"stages.0.0.body.{place}") for place in ("0.0", "0.1", "1.0")
    )
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(reader, nn.Conv2d)
    return convolution, norm, reader


def _survivors(before: Network, after: Network) -> list[int]:
    """Which channels of the body are left, told by their running means, which all differ."""
    old, new = _body(before)[1].running_mean, _body(after)[1].running_mean
    assert old is not None
    assert new is not None
    return [int((old == value).nonzero()) for value in new]


def _shapes(network: Network) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.module.state_dict().items()}


@pytest.mark.parametrize(
    ("channels", "fraction", "multiple", "left"),
    [
        (64, 0.25, 8, 48),
        (64, 0.5, 8, 32),
        (40, 0.25, 8, 32),  # 30 lies nearer to 32 than to 24
        (16, 0.25, 8, 16),  # 12 lies between 8 and 16: a tie keeps more
        (16, 0.5, 8, 8),
        (8, 0.9, 8, 8),  # never below one multiple
        (6, 0.5, 8, 6),  # never more than there are
        (20, 0.1, 8, 16),
        (10, 0.35, 1, 7),
    ],
)
def test_channels_left_is_the_nearest_multiple(channels: int, fraction: float, multiple: int, left: int) -> None:
    assert channels_left(channels, fraction=fraction, multiple=multiple) == left


@pytest.mark.parametrize("block", BLOCK_KINDS)
def test_every_block_is_pruned_and_still_runs_and_learns(block: BlockKind) -> None:
    network = tiny_network(block)
    pruned = prune(network, Pruning(channel_fraction=0.5), channel_multiple=8)
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    logits = pruned.module(images)
    assert logits.shape == (3, 6)
    assert logits.std(dim=0).min() > 0
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in pruned.module.parameters())
    for name, layer in pruned.module.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.out_channels >= 8:
            original = network.module.get_submodule(name)
            assert isinstance(original, nn.Conv2d)
            assert layer.out_channels == channels_left(original.out_channels, fraction=0.5, multiple=8), name


@pytest.mark.parametrize("block", BLOCK_KINDS)
def test_the_shape_does_not_depend_on_the_weights(block: BlockKind) -> None:
    pruning = Pruning(channel_fraction=0.4)
    untrained = build(tiny_spec(block, channels=48), seed=0)
    trained_like = build(tiny_spec(block, channels=48), seed=9)
    with torch.no_grad():
        for place, parameter in enumerate(trained_like.module.parameters()):
            parameter.mul_(10.0 ** (place % 5 - 2))
            parameter.view(-1)[::3] = 0.0
    shapes = _shapes(prune(untrained, pruning, channel_multiple=8))
    assert shapes == _shapes(prune(trained_like, pruning, channel_multiple=8))
    assert shapes != _shapes(untrained)


def test_channels_of_least_norm_leave_with_all_that_reads_them() -> None:
    network = tiny_network("basic")
    convolution = network.module.get_submodule("stages.0.0.body.0.0")
    reader = network.module.get_submodule("stages.0.0.body.1.0")
    norm = network.module.get_submodule("stages.0.0.body.0.1")
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(reader, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    weak = [1, 4, 5, 8, 11, 13, 16, 18, 20, 21, 23, 25, 27, 28, 30, 31]
    with torch.no_grad():
        convolution.weight[weak] = 0.0
        reader.weight[:, weak] = 0.0
        norm.weight[weak] = 0.0
        norm.bias[weak] = 0.0
    strong = [place for place in range(32) if place not in weak]
    pruned = prune(network, Pruning(channel_fraction=0.5), channel_multiple=8)
    left = pruned.module.get_submodule("stages.0.0.body.0.1")
    assert isinstance(left, nn.BatchNorm2d)
    assert torch.equal(left.weight, norm.weight[strong])
    assert left.running_mean is not None
    assert norm.running_mean is not None
    assert torch.equal(left.running_mean, norm.running_mean[strong])


def test_the_input_is_untouched_and_the_mode_is_kept() -> None:
    network = build(tiny_spec("mbconv"), dropout=0.3, seed=2)
    network.module.train()
    network.module.get_submodule("stages.0.0").eval()
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    random_state = torch.get_rng_state()
    pruned = prune(network, Pruning(channel_fraction=0.5), channel_multiple=8)
    after = network.module.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert torch.equal(random_state, torch.get_rng_state())
    modes = {name: layer.training for name, layer in network.module.named_modules()}
    assert {name: layer.training for name, layer in pruned.module.named_modules()} == modes
    assert all(parameter.requires_grad for parameter in pruned.module.parameters())


def test_pruning_twice_gives_equal_networks() -> None:
    network = tiny_network("inverted_residual")
    first, second = (prune(network, Pruning(channel_fraction=0.3), channel_multiple=8) for _ in range(2))
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.module.state_dict().values(), second.module.state_dict().values(), strict=True)
    )


def test_fraction_zero_gives_the_network_itself() -> None:
    network = tiny_network("basic")
    assert prune(network, Pruning(channel_fraction=0.0), channel_multiple=8) is network


@pytest.mark.parametrize("block", BLOCK_KINDS)
def test_widths_of_one_multiple_are_left_alone_and_it_says_so(
    block: BlockKind, caplog: pytest.LogCaptureFixture
) -> None:
    stage = StageSpec(block=block, depth=2, channels=8, kernel=3, stride=2)
    spec = NetworkSpec(
        name="narrow",
        resolution_px=8,
        num_classes=3,
        stem=StemSpec(channels=8, kernel=3, stride=1),
        stages=(stage, replace(stage, depth=1)),
        head=HeadSpec(),
    )
    network = build(spec)
    with caplog.at_level(logging.INFO):
        pruned = prune(network, Pruning(channel_fraction=0.9), channel_multiple=8)
    assert _shapes(pruned) == _shapes(network)
    assert "nothing pruned: no layer of narrow has 8 channels to spare" in caplog.text


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(StageFailed, match=r"prune: channel_fraction must be in \[0, 1\)"):
        prune(tiny_network("basic"), Pruning(channel_fraction=fraction), channel_multiple=8)


def test_nothing_is_printed_and_nothing_warned(capfd: pytest.CaptureFixture[str]) -> None:
    prune(tiny_network("mbconv"), Pruning(channel_fraction=0.5), channel_multiple=8)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("block", BLOCK_KINDS)
def test_every_criterion_works_on_every_block_and_uniform_shapes_are_one(
    block: BlockKind, criterion: Criterion
) -> None:
    network = tiny_network(block)
    images, labels = _batch()
    by_norm = prune(network, Pruning(channel_fraction=0.5), channel_multiple=8)
    for scope in SCOPES:
        pruning = Pruning(channel_fraction=0.5, criterion=criterion, scope=scope)
        pruned = prune(network, pruning, channel_multiple=8, evidence=Evidence(batch=judged(images, labels)))
        if scope == "uniform":
            assert _shapes(pruned) == _shapes(by_norm)
        logits = pruned.module(images)
        assert logits.std(dim=0).min() > 0
        cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        assert all(parameter.grad is not None for parameter in pruned.module.parameters())


def _expected_importance(network: Network, criterion: Criterion) -> Tensor:
    """The formulas, on the three layers of the body's group: mean over its layers, per channel."""
    convolution, norm, reader = _body(network)
    if criterion == "bn_scale":
        return norm.weight.detach().abs()
    if criterion == "taylor":
        total = torch.zeros(32)
        for images, labels in zip(*(torch.split(part, 16) for part in _batch()), strict=True):
            loss = cross_entropy(network.module(images), labels)
            gradients = torch.autograd.grad(loss, [convolution.weight, reader.weight])
            made = (convolution.weight * gradients[0]).abs().sum(dim=(1, 2, 3))
            read = (reader.weight * gradients[1]).abs().sum(dim=(0, 2, 3))
            total += ((made + read) / 2).detach()
        return total
    power = 2 if criterion == "l2" else 1
    made = (convolution.weight.abs() ** power).sum(dim=(1, 2, 3))
    read = (reader.weight.abs() ** power).sum(dim=(0, 2, 3))
    return ((made + norm.weight.abs() ** power + read) / 3).detach()


@pytest.mark.parametrize("criterion", ["l2", "l1", "bn_scale", "taylor"])
def test_the_channels_left_are_those_of_the_criterions_formula(criterion: Criterion) -> None:
    network = tiny_network("basic")
    with torch.no_grad():
        # Few large weights against many small ones: what tells the L1 norm from the L2 norm.
        _body(network)[0].weight[::2] *= (
            torch.rand(16, 16, 3, 3, generator=torch.Generator().manual_seed(1)) > 0.8
        ) * 2
    pruning = Pruning(channel_fraction=0.5, criterion=criterion)
    pruned = prune(network, pruning, channel_multiple=8, evidence=Evidence(batch=judged(*_batch())))
    expected = _expected_importance(network, criterion).topk(16).indices.sort().values.tolist()
    assert _survivors(network, pruned) == expected


def test_the_criteria_choose_differently() -> None:
    network = tiny_network("basic")
    with torch.no_grad():
        _body(network)[0].weight *= torch.linspace(0, 4, 32).view(-1, 1, 1, 1)
    chosen = {
        tuple(
            _survivors(
                network,
                prune(
                    network,
                    Pruning(channel_fraction=0.5, criterion=criterion),
                    channel_multiple=8,
                    evidence=Evidence(batch=judged(*_batch())),
                ),
            )
        )
        for criterion in ("l2", "bn_scale", "taylor", "random")
    }
    assert len(chosen) == 4


def test_random_follows_its_seed_and_leaves_the_global_generator() -> None:
    network = tiny_network("basic")
    pruning = Pruning(channel_fraction=0.5, criterion="random")
    state = torch.get_rng_state()
    first, again, other = (
        _survivors(network, prune(network, pruning, channel_multiple=8, evidence=Evidence(seed=seed)))
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_taylor_takes_its_own_gradients_and_leaves_none() -> None:
    network = tiny_network("mbconv")
    pruning = Pruning(channel_fraction=0.5, criterion="taylor", scope="global")
    clean = prune(network, pruning, channel_multiple=8, evidence=Evidence(batch=judged(*_batch())))
    stale = tiny_network("mbconv")
    stale.module(_batch()[0]).square().sum().backward()
    pruned = prune(stale, pruning, channel_multiple=8, evidence=Evidence(batch=judged(*_batch())))
    assert all(
        torch.equal(a, b)
        for a, b in zip(clean.module.state_dict().values(), pruned.module.state_dict().values(), strict=True)
    )
    assert all(parameter.grad is None for parameter in pruned.module.parameters())
    assert all(parameter.grad is not None for parameter in stale.module.parameters())


def test_taylor_without_a_batch_and_bn_scale_without_batchnorm_are_refused() -> None:
    network = tiny_network("basic")
    with pytest.raises(StageFailed, match="prune: criterion taylor reads gradients and needs a batch"):
        prune(network, Pruning(channel_fraction=0.5, criterion="taylor"), channel_multiple=8)
    plain = tiny_network("basic")
    for name, layer in list(plain.module.named_modules()):
        if isinstance(layer, nn.BatchNorm2d):
            plain.module.set_submodule(name, nn.Identity())
    with pytest.raises(StageFailed, match=r"prune: criterion bn_scale .* has no BatchNorm: take l1 or l2"):
        prune(plain, Pruning(channel_fraction=0.5, criterion="bn_scale"), channel_multiple=8)
    assert _shapes(prune(plain, Pruning(channel_fraction=0.5, criterion="l1"), channel_multiple=8)) != _shapes(plain)


@pytest.mark.parametrize("block", BLOCK_KINDS)
@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_global_removes_its_fraction_of_all_channels_in_whole_multiples(block: BlockKind, fraction: float) -> None:
    network = tiny_network(block, channels=48, stem=20)
    before = prunable_widths(network)
    after = prunable_widths(prune(network, Pruning(channel_fraction=fraction, scope="global"), channel_multiple=8))
    assert before.keys() == after.keys()
    removed = sum(before.values()) - sum(after.values())
    assert abs(removed - fraction * sum(before.values())) <= 4  # half a multiple
    for name, width in after.items():
        assert width == before[name] or (width % 8 == 0 and width >= 8), name


def test_global_takes_what_matters_least_wherever_it_is() -> None:
    """24 of 112 channels do nothing, all in one layer: a fraction of 24 / 112 leaves all other layers whole."""
    network = tiny_network("basic")
    convolution, norm, reader = _body(network)
    dead = [place for place in range(32) if place % 4]
    with torch.no_grad():
        for weight in (convolution.weight, norm.weight, norm.bias):
            weight[dead] = 0.0
        reader.weight[:, dead] = 0.0
    before = prunable_widths(network)
    pruned = prune(network, Pruning(channel_fraction=24 / 112, scope="global"), channel_multiple=8)
    assert prunable_widths(pruned) == {**before, BODY: 8}
    images, _ = _batch()
    torch.testing.assert_close(pruned.module(images), network.module(images))


def test_global_leaves_one_multiple_everywhere_whatever_is_asked() -> None:
    network = tiny_network("mbconv")
    pruned = prune(network, Pruning(channel_fraction=0.99, scope="global"), channel_multiple=8)
    assert {name: min(8, width) for name, width in prunable_widths(network).items()} == prunable_widths(pruned)


def test_ratios_prune_the_layers_that_they_name() -> None:
    network = tiny_network("basic", channels=32, stem=18)
    before = prunable_widths(network)
    pruned = prune(
        network,
        Pruning(channel_fraction=0.9),
        channel_multiple=8,
        layers=LayerShares(ratios={BODY: 0.5, "stem.0": 0.0}),
    )
    assert prunable_widths(pruned) == {**before, BODY: 16}
    assert (
        prune(network, Pruning(channel_fraction=0.9), channel_multiple=8, layers=LayerShares(ratios={BODY: 0.0}))
        is network
    )
    with pytest.raises(StageFailed, match=r"prune: ratios name .* not the first layer .*: classifier, nowhere"):
        prune(network, Pruning(), channel_multiple=8, layers=LayerShares(ratios={"nowhere": 0.5, "classifier": 0.5}))


@pytest.mark.parametrize("scope", SCOPES)
def test_rounds_end_where_one_round_does(scope: PruningScope) -> None:
    network = tiny_network("inverted_residual", channels=24)
    widths = prunable_widths(network)
    left = network
    for done in (1, 2, 3):
        pruning = Pruning(channel_fraction=0.5 * done / 3, scope=scope)
        left = prune(left, pruning, channel_multiple=8, layers=LayerShares(widths=widths))
    at_once = prune(network, Pruning(channel_fraction=0.5, scope=scope), channel_multiple=8)
    ends, once = prunable_widths(left), prunable_widths(at_once)
    assert sum(ends.values()) == sum(once.values())
    assert ends == once or scope == "global"
    del widths["stem.0"]
    with pytest.raises(StageFailed, match=r"prune: widths must be those of the same layers.* none of stem\.0"):
        prune(left, Pruning(channel_fraction=0.5, scope=scope), channel_multiple=8, layers=LayerShares(widths=widths))


def _own(name: str) -> Network:
    spec = replace(find_spec(f"own_modules:{name}"), num_classes=10, resolution_px=32)
    return Network(spec=spec, module=own_module(spec, seed=0).eval())


def test_a_follower_of_a_module_that_takes_one_type_alone_is_cut_as_the_module() -> None:
    network = _own("in_one_type")
    follower = numbered(network.module)
    pruned = prune(network, Pruning(channel_fraction=0.5), channel_multiple=4, follower=follower).module
    first = 0
    for name, weight in network.module.named_parameters():
        ids, left = follower.get_parameter(name).detach(), pruned.get_parameter(name)
        assert ids.dtype == torch.float64
        assert torch.equal(weight.detach().flatten()[(ids - first).long()], left.detach()), name
        first += weight.numel()
    assert pruned.get_parameter("stem.weight").shape == (8, 3, 3, 3)


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_widths_before_a_group_norm_are_multiples_of_its_groups(fraction: float, scope: PruningScope) -> None:
    """32 groups of 64 channels leave 64 or 32, 4 groups of 48 leave a multiple of 8."""
    network = _own("group_normed")
    pruned = prune(network, Pruning(channel_fraction=fraction, scope=scope), channel_multiple=8)
    first, second = (prunable_widths(pruned)[name] for name in ("0", "3"))
    assert (first % 32, second % 8) == (0, 0)
    if scope == "uniform":
        # 0.75 * 64 / 32 = 1.5 rounds up to 2, and 0.75 * 48 / 8 = 4.5 to 5.
        assert (first, second) == {0.25: (64, 40), 0.5: (32, 24)}[fraction]
    least = prune(pruned, Pruning(channel_fraction=0.9), channel_multiple=1)
    assert least.module(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_a_group_norm_over_channels_that_leave_apart_keeps_them() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.norm = nn.Conv2d(3, 24, 1), nn.Conv2d(3, 8, 1), nn.GroupNorm(16, 32)
            self.fc = nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            joined = self.norm(torch.cat([self.one(x), self.two(x)], dim=1))
            logits: Tensor = self.fc(joined.mean(dim=(2, 3)))
            return logits

    # Of 24 and 8, 30 % would leave 17 and 6; as multiples of 16 where there are any, 16 and 8. None sums up to such.
    network = replace(_own("group_normed"), module=Joined().eval())
    pruned = prune(network, Pruning(channel_fraction=0.3), channel_multiple=1)
    assert pruned.module(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize("fraction", [0.25, 0.5])
@pytest.mark.parametrize("name", ["attending", "attending_reshaped", "attending_in_one", "attending_apart"])
def test_channels_that_are_split_into_heads_stay_and_the_others_leave(name: str, fraction: float) -> None:
    network = _own(name)
    follower = numbered(network.module)
    pruned = prune(network, Pruning(channel_fraction=fraction), channel_multiple=4, follower=follower).module
    left = int(32 * (1 - fraction))
    shapes = {layer: tuple(pruned.get_parameter(f"{layer}.weight").shape) for layer in ("qkv", "values", "out", "wide")}
    assert shapes["qkv"] == (96, left)
    assert shapes["out"] == (left, 32)
    assert shapes["wide"] == (2 * left, left)
    assert shapes["values"] == ((32, left) if name == "attending_apart" else (32, 32))  # else nothing runs it
    assert follower.get_parameter("qkv.weight").shape == (96, left)


def test_a_layer_that_lost_more_than_was_chosen_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalesearch.compression.importance.split_layers", lambda _: frozenset())
    with pytest.raises(StageFailed, match=r"qkv has \d+ of 96 channels after the cut, expected 72: its forward takes"):
        prune(_own("attending_in_one"), Pruning(channel_fraction=0.25), channel_multiple=4)


def test_a_module_all_of_whose_channels_are_shuffled_is_refused() -> None:
    with pytest.raises(StageFailed, match="own_modules:shuffled cannot be cut: its forward splits, shuffles or"):
        prune(_own("shuffled"), Pruning(channel_fraction=0.5), channel_multiple=1)


def test_a_follower_that_ends_in_another_shape_is_told() -> None:
    network = _own("attending")
    follower = numbered(network.module)
    follower.wide, follower.narrow = nn.Linear(32, 68), nn.Linear(68, 32)
    with pytest.raises(
        StageFailed, match=r"left wide\.weight \(52, 24\) in a copy of the network, expected \(48, 24\)"
    ):
        prune(network, Pruning(channel_fraction=0.25), channel_multiple=4, follower=follower)
