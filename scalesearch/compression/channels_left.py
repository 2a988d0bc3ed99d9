"""How many channels each layer keeps, and how many leave it."""

import math
from collections.abc import Mapping, Sequence

import torch

from scalesearch.compression.importance import Group
from scalesearch.errors import StageFailed


def channels_left(channels: int, *, fraction: float, multiple: int) -> int:
    """Return how many of a layer's channels are kept: the multiple that is nearest to (1 - fraction) * channels.

    At least `multiple` channels are kept (or all, if there are fewer); a tie keeps more.
    """
    nearest = int(channels * (1 - fraction) / multiple + 0.5) * multiple
    return min(channels, max(multiple, nearest))


def widths_before(groups: Sequence[Group], widths: Mapping[str, int] | None) -> dict[str, int]:
    """Return the widths that fractions refer to, by group: those given, or the present ones.

    Raises:
        StageFailed: The width of a group is missing.
    """
    if widths is None:
        return {group.name: group.channels for group in groups}
    missing = sorted({group.name for group in groups} - widths.keys())
    if missing:
        reason = (
            f"widths must be those of the same layers, before the first round; there is none of {', '.join(missing)}"
        )
        raise StageFailed(stage="prune", reason=reason)
    return {group.name: widths[group.name] for group in groups}


def named_ratios(ratios: Mapping[str, float], before: Mapping[str, int]) -> Mapping[str, float]:
    """Return the fractions as they are, after checking that each names a prunable group.

    Raises:
        StageFailed: A name is not that of a prunable group.
    """
    unknown = sorted(ratios.keys() - before.keys())
    if unknown:
        reason = f"ratios name what is not the first layer of a prunable group: {', '.join(unknown)}"
        raise StageFailed(stage="prune", reason=reason)
    return ratios


def by_ratio(
    groups: Sequence[Group], ratios: Mapping[str, float], before: Mapping[str, int], multiple: int
) -> list[int]:
    """Return how many channels leave each group, by the group's own fraction."""
    left = [
        channels_left(before[group.name], fraction=ratios[group.name], multiple=math.lcm(multiple, group.step))
        if ratios.get(group.name, 0) > 0
        else group.channels
        for group in groups
    ]
    return [max(0, group.channels - keep) for group, keep in zip(groups, left, strict=True)]


def by_rank(groups: Sequence[Group], fraction: float, before: Mapping[str, int], multiple: int) -> list[int]:
    """Return how many channels leave each group, ranked over all groups.

    Together, the removed channels are `fraction` of all channels, to within half a multiple where possible.
    """
    ranked: list[tuple[float, int, int]] = []
    for place, group in enumerate(groups):
        sizes = _portions(group.channels, math.lcm(multiple, group.step))
        ascending = group.importance.sort().values[: sum(sizes)]
        means = [float(part.mean()) for part in torch.split(ascending, sizes)]
        # Means of equal numbers can differ in the last bit, but the portions of a group must still leave in order.
        ranked += [(max(means[: rank + 1]), place, size) for rank, size in enumerate(sizes)]
    ranked.sort(key=lambda portion: portion[0])
    left_before = sum(before.values()) - sum(group.channels for group in groups)
    missing = fraction * sum(before.values()) - left_before
    chosen = [0] * len(groups)
    for _, place, size in ranked:
        if missing <= size / 2:
            break
        chosen[place] += size
        missing -= size
    return chosen


def _portions(channels: int, multiple: int) -> list[int]:
    """Return the sizes of the portions in which channels may leave a layer, in order.

    The first portion is what exceeds a whole number of multiples; each further one is one multiple. The last multiple
    is not listed, so it always stays.
    """
    if channels <= multiple:
        return []
    odd = channels % multiple
    return ([odd] if odd else []) + [multiple] * (channels // multiple - 1)
