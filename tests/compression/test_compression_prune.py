import logging
from dataclasses import replace

import pytest
import torch
from tiny_networks import BLOCK_KINDS, tiny_network, tiny_spec
from torch import nn

from scalesearch.compression.prune import channels_left, prune
from scalesearch.errors import StageFailed
from scalesearch.networks.build import build
from scalesearch.values.candidate import Pruning
from scalesearch.values.network import Network
from scalesearch.values.network_spec import BlockKind, HeadSpec, NetworkSpec, StageSpec, StemSpec


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
