"""Sensitivity: measure how much score each layer loses with its channels, and derive pruning fractions from that."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scalesearch.compression.channels_left import channels_left
from scalesearch.compression.importance import Evidence, Judged
from scalesearch.compression.prune import LayerShares, prunable_groups, prune
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import Criterion, Pruning
from scalesearch.values.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityPoint:
    """What one layer loses when one fraction of its channels is removed."""

    fraction: float
    """Fraction that was asked for."""
    channels_left: int
    """Channels left after rounding."""
    loss: float
    """Score of the whole network minus its score with only this layer pruned, as a fraction; may be negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """How much score is lost as a group of coupled layers loses channels."""

    name: str
    """Name of the group's first layer, as in `prune.prunable_widths`."""
    channels: int
    points: tuple[SensitivityPoint, ...]
    """In the order of rising fractions."""


def channel_sensitivity(
    network: Network,
    *,
    fractions: Sequence[float],
    score: Callable[[Network], float],
    channel_multiple: int,
    criterion: Criterion = "l2",
    batch: Judged | None = None,
) -> tuple[LayerSensitivity, ...]:
    """Measure the loss of score when one prunable group alone is pruned, for every group and fraction.

    Nothing is retrained (Li et al., arXiv 1608.08710, section 3.2 and figure 2(b)). Fractions that round to the same
    width are scored once.

    Args:
        network: Trained, in eval mode.
        fractions: Fractions of channels to remove, each in (0, 1).
        score: Returns the score (0..1) of a network, higher is better. It is called once for the network itself and at
            most once for each group and fraction.
        channel_multiple: The widths left are multiples of it.
        criterion: Decides which channels are removed.
        batch: Needed by the criterion `taylor`, as in `prune`.

    Returns:
        One entry for each group.

    Raises:
        StageFailed: There is no fraction or one is not in (0, 1), or `prune` refuses the criterion.
    """
    if not fractions or not all(0 < fraction < 1 for fraction in fractions):
        reason = f"sensitivity needs fractions between 0 and 1, got {list(fractions)}"
        raise StageFailed(stage="sensitivity", reason=reason)
    whole = score(network)

    def of_layer(name: str, channels: int, step: int) -> LayerSensitivity:
        losses = {channels: 0.0}
        points = []
        for fraction in sorted(fractions):
            left = channels_left(channels, fraction=fraction, multiple=math.lcm(channel_multiple, step))
            if left not in losses:
                pruned = prune(
                    network,
                    Pruning(criterion=criterion),
                    channel_multiple=channel_multiple,
                    evidence=Evidence(batch=batch),
                    layers=LayerShares(ratios={name: fraction}),
                )
                losses[left] = whole - score(pruned)
            points.append(SensitivityPoint(fraction=fraction, channels_left=left, loss=losses[left]))
        return LayerSensitivity(name=name, channels=channels, points=tuple(points))

    return tuple(of_layer(group.name, group.channels, group.step) for group in prunable_groups(network))


def ratios_from_sensitivity(sensitivity: Sequence[LayerSensitivity], *, budget_fraction: float) -> dict[str, float]:
    """Choose a fraction of every layer so that together about `budget_fraction` of all channels are removed.

    Of all ways to give each layer one of its measured widths, this is the one with the least sum of losses. It is found
    exactly, by dynamic programming over the number of removed channels (a multiple-choice knapsack). Two assumptions
    are made: that the losses of single layers add up, and that a layer never loses less with fewer channels. A loss
    measured below that of an earlier point is taken as noise and counts as much as the earlier one. The budget is
    reached, and exceeded by less than the largest step between two widths; if no choice reaches it, every layer loses
    as many channels as was measured.

    Args:
        sensitivity: One entry for each layer, from `channel_sensitivity`.
        budget_fraction: Share of all channels to remove, in [0, 1).

    Returns:
        Fraction to remove by layer name, for `ratios` of `prune`.

    Raises:
        StageFailed: The budget is not in [0, 1).
    """
    if not 0 <= budget_fraction < 1:
        raise StageFailed(stage="sensitivity", reason=f"budget_fraction must be in [0, 1), got {budget_fraction}")
    choices = [_choices(layer) for layer in sensitivity]
    most = sum(layer[-1][0] for layer in choices)
    budget = min(most, math.ceil(budget_fraction * sum(layer.channels for layer in sensitivity)))
    step = max((b[0] - a[0] for layer in choices for a, b in itertools.pairwise(layer)), default=0)
    least, picks = _least_losses(choices, most)
    window = least[budget : budget + max(step, 1)]
    removed = budget + int(np.argmin(window))
    ratios = {}
    for layer, picked in zip(reversed(sensitivity), reversed(picks), strict=True):
        gone = int(picked[removed])
        ratios[layer.name] = gone / layer.channels
        removed -= gone
    return dict(reversed(ratios.items()))


def _choices(layer: LayerSensitivity) -> list[tuple[int, float]]:
    """Return (channels removed, loss) for each width of a layer, from none removed on, both rising."""
    choices = [(0, 0.0)]
    for point in sorted(layer.points, key=lambda point: -point.channels_left):
        gone = layer.channels - point.channels_left
        if gone > choices[-1][0]:
            choices.append((gone, max(choices[-1][1], point.loss)))
    return choices


def _least_losses(
    choices: Sequence[Sequence[tuple[int, float]]], most: int
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], list[np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    """Return the least sum of losses for every number of removed channels, and how many each layer loses for it.

    Returns:
        Least sums (most + 1,), infinite where no choice removes that number of channels; and for each layer an array
        (most + 1,) of the channels it loses.
    """
    least = np.full(most + 1, np.inf)
    least[0] = 0.0
    picks = []
    for layer in choices:
        after = np.full(most + 1, np.inf)
        picked = np.zeros(most + 1, dtype=np.int64)
        for gone, loss in layer:
            moved = np.full(most + 1, np.inf)
            moved[gone:] = least[: most + 1 - gone] + loss
            better = moved < after
            after[better], picked[better] = moved[better], gone
        least = after
        picks.append(picked)
    return least, picks
