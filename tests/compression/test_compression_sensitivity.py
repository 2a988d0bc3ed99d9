import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_networks import gratings, tiny_network
from torch import Tensor, nn

from scalesearch.compression.prune import LayerShares, prunable_widths, prune
from scalesearch.compression.sensitivity import (
    LayerSensitivity,
    SensitivityPoint,
    channel_sensitivity,
    ratios_from_sensitivity,
)
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import Pruning
from scalesearch.values.network import Network

BODY = "stages.0.0.body.0.0"
IMAGES = torch.from_numpy(gratings(8, seed=4)[0])


def _logits(network: Network) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network.module(IMAGES)
    return logits


def _half_dead() -> Network:
    """Half of the channels of one layer do nothing."""
    network = tiny_network("basic")
    convolution, norm, reader = (
        network.module.get_submodule(f"stages.0.0.body.{place}") for place in ("0.0", "0.1", "1.0")
    )
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(reader, nn.Conv2d)
    with torch.no_grad():
        for weight in (convolution.weight, norm.weight, norm.bias):
            weight[::2] = 0.0
        reader.weight[:, ::2] = 0.0
    return network


def test_a_layer_of_which_half_is_dead_loses_nothing_by_half() -> None:
    network = _half_dead()
    whole = _logits(network)

    def score(other: Network) -> float:
        return 1.0 - float((_logits(other) - whole).abs().mean())

    layers = channel_sensitivity(network, fractions=(0.75, 0.5), score=score, channel_multiple=8)
    assert {layer.name: layer.channels for layer in layers} == prunable_widths(network)
    by_name = {layer.name: layer.points for layer in layers}
    assert [point.fraction for point in by_name[BODY]] == [0.5, 0.75]
    assert [point.channels_left for point in by_name[BODY]] == [16, 8]
    assert by_name[BODY][0].loss == pytest.approx(0.0, abs=1e-6)
    assert by_name[BODY][1].loss > 1e-3
    assert all(point.loss > 1e-3 for name, points in by_name.items() if name != BODY for point in points)


def test_losses_are_the_score_of_the_whole_less_that_of_one_pruned_layer() -> None:
    """A score that counts parameters: a formula gives every loss."""
    network = tiny_network("basic")
    calls = []

    def score(other: Network) -> float:
        calls.append(other)
        return float(sum(parameter.numel() for parameter in other.module.parameters()))

    layers = channel_sensitivity(network, fractions=(0.25, 0.5), score=score, channel_multiple=8)
    body = next(layer for layer in layers if layer.name == BODY)
    # 16 inputs and 32 readers of 3 x 3, and a BatchNorm's two.
    assert [point.loss for point in body.points] == [8 * (9 * (16 + 32) + 2), 16 * (9 * (16 + 32) + 2)]
    stem = next(layer for layer in layers if layer.name == "stem.0")
    assert [point.channels_left for point in stem.points] == [16, 8]  # 12 lies between 8 and 16: a tie keeps more
    assert stem.points[0].loss == 0
    assert len(calls) == 1 + 2 * 3 + 1  # the whole network, two widths of three layers, one of the stem


def test_fractions_that_round_to_one_width_are_scored_once() -> None:
    network = tiny_network("basic")
    scores = itertools.count()
    layers = channel_sensitivity(
        network, fractions=(0.5, 0.52, 0.9, 0.95), score=lambda _: float(next(scores)), channel_multiple=8
    )
    for layer in layers:
        assert layer.points[0].loss == layer.points[1].loss
        assert layer.points[2].loss == layer.points[3].loss
    assert next(scores) == 1 + 2 * 3 + 1


@pytest.mark.parametrize("fractions", [(), (0.0,), (0.5, 1.0), (float("nan"),)])
def test_fractions_out_of_range_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(StageFailed, match="sensitivity needs fractions between 0 and 1, got"):
        channel_sensitivity(tiny_network("basic"), fractions=fractions, score=lambda _: 0.0, channel_multiple=8)


def _layer(name: str, channels: int, losses: dict[int, float]) -> LayerSensitivity:
    points = tuple(
        SensitivityPoint(fraction=1 - left / channels, channels_left=left, loss=loss) for left, loss in losses.items()
    )
    return LayerSensitivity(name=name, channels=channels, points=points)


def test_the_budget_is_taken_where_it_hurts_least() -> None:
    tough = _layer("tough", 32, {24: 0.01, 16: 0.02, 8: 0.03})
    frail = _layer("frail", 32, {24: 0.2, 16: 0.4, 8: 0.6})
    assert ratios_from_sensitivity((frail, tough), budget_fraction=0.0) == {"frail": 0.0, "tough": 0.0}
    assert ratios_from_sensitivity((frail, tough), budget_fraction=0.25) == {"frail": 0.0, "tough": 0.5}
    assert ratios_from_sensitivity((frail, tough), budget_fraction=0.5) == {"frail": 0.25, "tough": 0.75}
    assert ratios_from_sensitivity((frail, tough), budget_fraction=0.99) == {"frail": 0.75, "tough": 0.75}


def test_a_lucky_measurement_does_not_make_a_layer_free() -> None:
    """Fewer channels that score better are noise: they count as much as the point before."""
    lucky = _layer("lucky", 32, {24: 0.3, 16: -0.5})
    plain = _layer("plain", 32, {24: 0.1, 16: 0.15})
    assert ratios_from_sensitivity((lucky, plain), budget_fraction=0.25) == {"lucky": 0.0, "plain": 0.5}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("budget_fraction", [0.1, 0.35, 0.6])
def test_no_other_choice_loses_less(seed: int, budget_fraction: float) -> None:
    """Against all choices, tried out."""
    random = np.random.default_rng(seed)
    layers = []
    for number in range(4):
        channels = int(random.integers(2, 7)) * 8
        lefts = range(channels - 8, 0, -8)
        losses = np.cumsum(random.uniform(0, 1, len(lefts)))
        layers.append(_layer(f"layer{number}", channels, dict(zip(lefts, losses.tolist(), strict=True))))
    ratios = ratios_from_sensitivity(layers, budget_fraction=budget_fraction)
    total = sum(layer.channels for layer in layers)
    choices = [[(0, 0.0), *((layer.channels - p.channels_left, p.loss) for p in layer.points)] for layer in layers]
    within = [
        sum(loss for _, loss in picks)
        for picks in itertools.product(*choices)
        if budget_fraction * total <= sum(gone for gone, _ in picks) < budget_fraction * total + 8
    ]
    removed, lost = 0, 0.0
    for layer, choice in zip(layers, choices, strict=True):
        gone = round(ratios[layer.name] * layer.channels)
        removed, lost = removed + gone, lost + dict(choice)[gone]
    assert budget_fraction * total <= removed < budget_fraction * total + 8
    assert lost == pytest.approx(min(within))


def test_ratios_are_understood_by_prune() -> None:
    network = tiny_network("basic")
    layers = channel_sensitivity(
        network,
        fractions=(0.25, 0.5, 0.75),
        score=lambda other: -float((_logits(other) - _logits(network)).abs().mean()),
        channel_multiple=8,
    )
    ratios = ratios_from_sensitivity(layers, budget_fraction=0.4)
    pruned = prune(network, Pruning(), channel_multiple=8, layers=LayerShares(ratios=ratios))
    before, after = prunable_widths(network), prunable_widths(pruned)
    assert {name: round(before[name] * (1 - ratios[name])) for name in before} == after
    removed = 1 - sum(after.values()) / sum(before.values())
    assert 0.4 <= removed < 0.4 + 8 / 112


def test_a_budget_out_of_range_is_refused() -> None:
    layer = _layer("one", 16, {8: 0.1})
    for budget in (-0.1, 1.0, float("nan")):
        with pytest.raises(StageFailed, match=r"budget_fraction must be in \[0, 1\), got"):
            ratios_from_sensitivity((layer,), budget_fraction=budget)
    assert ratios_from_sensitivity((replace(layer, points=()),), budget_fraction=0.5) == {"one": 0.0}
