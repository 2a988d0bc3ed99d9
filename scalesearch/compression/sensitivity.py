"""Sensitivity: what each layer's channels are worth, measured alone, and fractions per layer that follow from it."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from scalesearch.compression.prune import channels_left, prunable_widths, prune
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import Criterion, Pruning
from scalesearch.values.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityPoint:
    """One fraction of one layer."""

    fraction: float
    """As asked."""
    channels_left: int
    """After rounding."""
    loss: float
    """Score of the whole network less its score with this layer alone pruned, as a fraction; may be negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """What a group of coupled layers loses with its channels."""

    name: str
    """Of the group's first layer, as in `prune.prunable_widths`."""
    channels: int
    points: tuple[SensitivityPoint, ...]
    """By rising fraction."""


def channel_sensitivity(
    network: Network,
    *,
    fractions: Sequence[float],
    score: Callable[[Network], float],
    channel_multiple: int,
    criterion: Criterion = "l2",
    batch: tuple[Tensor, Tensor] | None = None,
) -> tuple[LayerSensitivity, ...]:
    """Loss of score of every prunable group at every fraction, the other groups whole, without any retraining.

    Li et al., arXiv 1608.08710, section 3.2 and figure 2(b). Fractions that round to one width are scored once.

    Args:
        network: Trained, in eval mode.
        fractions: Each in (0, 1).
        score: Accuracy (0..1) of a network, the more the better; called once for the network itself and at most once
            for each group and fraction.
        channel_multiple: Widths left are multiples of it.
        criterion: Which channels leave.
        batch: For `taylor`, as in `prune`.

    Raises:
        StageFailed: There is no fraction or one is not in (0, 1), or `prune` refuses the criterion.
    """
    if not fractions or not all(0 < fraction < 1 for fraction in fractions):
        reason = f"sensitivity needs fractions between 0 and 1, got {list(fractions)}"
        raise StageFailed(stage="sensitivity", reason=reason)
    whole = score(network)

    def of_layer(name: str, channels: int) -> LayerSensitivity:
        losses = {channels: 0.0}
        points = []
        for fraction in sorted(fractions):
            left = channels_left(channels, fraction=fraction, multiple=channel_multiple)
            if left not in losses:
                pruned = prune(
                    network,
                    Pruning(criterion=criterion),
                    channel_multiple=channel_multiple,
                    ratios={name: fraction},
                    batch=batch,
                )
                losses[left] = whole - score(pruned)
            points.append(SensitivityPoint(fraction=fraction, channels_left=left, loss=losses[left]))
        return LayerSensitivity(name=name, channels=channels, points=tuple(points))

    return tuple(of_layer(name, channels) for name, channels in prunable_widths(network).items())


def ratios_from_sensitivity(sensitivity: Sequence[LayerSensitivity], *, budget_fraction: float) -> dict[str, float]:
    """Fraction of every layer, for `prune`'s `ratios`, that removes about the budget's share of all channels.

    Of all ways to give each layer one of its measured widths, the one of least summed loss, found exactly by dynamic
    programming over the channels removed (a multiple-choice knapsack). It takes losses of single layers to add up, and
    a layer never to lose less with fewer channels: what was measured below an earlier point is noise and counts as
    much as that point. The share is met, and exceeded by less than the largest step between two widths; where no
    choice reaches it, every layer gives what it can.

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
    """(channels removed, loss) of a layer, from none on, both rising."""
    choices = [(0, 0.0)]
    for point in sorted(layer.points, key=lambda point: -point.channels_left):
        gone = layer.channels - point.channels_left
        if gone > choices[-1][0]:
            choices.append((gone, max(choices[-1][1], point.loss)))
    return choices


def _least_losses(
    choices: Sequence[Sequence[tuple[int, float]]], most: int
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], list[np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    """Least summed loss for every number of channels removed, and what each layer gives for it."""
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
