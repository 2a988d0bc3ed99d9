"""The Pareto front, what is derived from it, and what is near it. No I/O: records and points to records and numbers."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from scalesearch.errors import ConfigError
from scalesearch.values.latency import Latency
from scalesearch.values.record import MeasuredTrial, TrialRecord

Point = tuple[float, float]
"""(score as a fraction, p50_ms)."""

REFERENCE: Point = (0.0, 1000.0)
"""A score of 0 and one second. It is fixed, so that hypervolumes of all runs on one device and data set can be
compared, except where a network takes more than half a second (`reference_beyond`)."""


def reference_beyond(slowest_ms: float) -> Point:
    """Return the usual reference, or one of twice this latency where that is slower: beyond it hypervolumes are 0."""
    return (REFERENCE[0], max(REFERENCE[1], 2 * slowest_ms))


def point(record: TrialRecord) -> Point:
    """Return (score as a fraction, latency in milliseconds) of a record: the engine's p50, or the end-to-end latency.

    Raises:
        ValueError: The record lacks one of the two.
    """
    if record.quality is None or record.latency is None:
        msg = f"trial {record.trial} has no score and latency; only complete trials have a point"
        raise ValueError(msg)
    return (record.quality.score, record.latency.p50_ms)


def reference_of(records: Iterable[TrialRecord]) -> Point:
    """Return the reference of hypervolumes that are shown of these records: beyond the slowest feasible one."""
    return reference_beyond(max((point(record)[1] for record in records if record.feasible), default=0.0))


def as_good(one: Point, other: Point) -> bool:
    """Tell whether the first point is at least as accurate and at least as fast as the other."""
    return one[0] >= other[0] and one[1] <= other[1]


def dominates(one: Point, other: Point) -> bool:
    """Tell whether the first point is at least as good as the other in both objectives, and better in one."""
    return one != other and as_good(one, other)


_Item = TypeVar("_Item")


def undominated(items: Iterable[_Item], point_of: Callable[[_Item], Point]) -> list[_Item]:
    """Return the items whose points no other item's point dominates, fastest first; equal points all stay."""
    # In this order, a point is dominated exactly if an earlier, unequal point is at least as accurate.
    ordered = sorted(items, key=lambda item: (point_of(item)[1], -point_of(item)[0]))
    kept: list[_Item] = []
    for item in ordered:
        if not kept or point_of(item)[0] > point_of(kept[-1])[0] or point_of(item) == point_of(kept[-1]):
            kept.append(item)
    return kept


def pareto_front(records: Iterable[TrialRecord]) -> tuple[MeasuredTrial, ...]:
    """Return the feasible records that no other one beats in both objectives, fastest first; equal points all stay.

    Answers repeated from an earlier record (`same_as`) are left out.

    Raises:
        ConfigError: If the records were measured on different devices, at different batch sizes or with different
            objectives, which do not compare.
    """
    asked = (record.measured for record in records if record.feasible and record.same_as is None)
    feasible = [record for record in asked if record is not None]
    _refuse_unlike_devices(feasible)
    feasible.sort(key=lambda record: record.trial)
    return tuple(undominated(feasible, point))


def _refuse_unlike_devices(records: Sequence[MeasuredTrial]) -> None:
    for record in records[1:]:
        if record.latency.batch != records[0].latency.batch:
            msg = (
                f"latencies of unlike batches never share a front: trial {records[0].trial} was timed at batch "
                f"{records[0].latency.batch}, trial {record.trial} at {record.latency.batch}; keep one study for each"
            )
            raise ConfigError(msg)
        unlike = [(f"{name}s", one, other) for name, one, other in _objectives(records[0], record) if one != other]
        for name, one, other in unlike:
            msg = (
                f"unlike {name} never share a front: trial {records[0].trial} has {one}, trial {record.trial} has "
                f"{other}; keep one study for each"
            )
            raise ConfigError(msg)
        if record.device != records[0].device:
            msg = (
                f"latencies of unlike devices never share a front: trial {records[0].trial} was measured on "
                f"{records[0].device}, trial {record.trial} on {record.device}; keep one study for each device"
            )
            raise ConfigError(msg)


def _objectives(one: MeasuredTrial, other: MeasuredTrial) -> tuple[tuple[str, str, str], ...]:
    """Return what the two objectives of two records stand for, each with its name."""
    return (
        ("latency objective", one.latency.objective, other.latency.objective),
        ("score", one.quality.metric, other.quality.metric),
    )


def hypervolume(points: Iterable[Point], reference: Point = REFERENCE) -> float:
    """Return the area that the points dominate, score times ln(latency), up to `reference`.

    Latency enters by its logarithm, so that halving it is worth as much at 10 ms as at 1 ms. A point that does not beat
    the reference in both objectives adds nothing.

    Args:
        points: (score as a fraction, p50 in milliseconds) pairs.
        reference: The worst point, in the same units.
    """
    area, best_score = 0.0, reference[0]
    # Starting with the fastest, each point adds the strip between the best score so far and its own.
    for score, p50_ms in sorted(points, key=lambda each: each[1]):
        if score > best_score and p50_ms < reference[1]:
            area += (score - best_score) * math.log(reference[1] / p50_ms)
            best_score = score
    return area


def knee(front: Sequence[MeasuredTrial], *, score: float = 1.0, latency: float = 1.0) -> MeasuredTrial | None:
    """Return the knee of the front: the point furthest above the line between its ends; None for an empty front.

    Both objectives are first scaled to 0..1 over the front (latency by its logarithm). `score` and `latency` are
    their weights. Where nothing bends (two points, a straight line), it is the most accurate of the equal points.
    Reference: Das, "On characterizing the knee of the Pareto curve", Structural Optimization 18 (1999).
    """
    if not front:
        return None
    heights = {
        record.trial: (round(score * gain - latency * cost, 9), point(record)[0])
        for record, (gain, cost) in zip(front, picture(front), strict=True)
    }
    return max(front, key=lambda record: heights[record.trial])


def picture(front: Sequence[TrialRecord]) -> tuple[Point, ...]:
    """Return (score, log latency) of each member, both scaled to 0..1 over the front.

    The knee and distances between members are computed from these points.
    """
    scores = [point(record)[0] for record in front]
    logs = [math.log(point(record)[1]) for record in front]
    return tuple(zip(_unit(scores), _unit(logs), strict=True))


def _unit(values: Sequence[float]) -> list[float]:
    span = max(values) - min(values) or 1.0
    return [(value - min(values)) / span for value in values]


def ties(front: Sequence[MeasuredTrial]) -> tuple[tuple[int, int], ...]:
    """Return pairs of trial numbers that the data cannot tell apart.

    Their 95 % intervals overlap in both score and latency. The result has pairs, not groups: A may tie with B and B
    with C while A and C differ.
    """
    return tuple(
        (one.trial, other.trial) for i, one in enumerate(front) for other in front[i + 1 :] if _is_tie(one, other)
    )


def _is_tie(one: MeasuredTrial, other: MeasuredTrial) -> bool:
    scores = [(each.quality.score_low, each.quality.score_high) for each in (one, other)]
    return overlap(*scores) and latencies_overlap(one.latency, other.latency)


def latencies_overlap(one: Latency, other: Latency) -> bool:
    """Tell whether the 95 % intervals of two latencies overlap."""
    return overlap((one.p50_low_ms, one.p50_high_ms), (other.p50_low_ms, other.p50_high_ms))


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Tell whether two intervals (low, high) have a point in common."""
    return one[0] <= other[1] and other[0] <= one[1]


LIKELY_SPEEDUP = 1.5
"""Speed-up that another precision is likely to bring. A candidate that would be on the front with this speed-up counts
as near it."""


def near_front(record: TrialRecord, front: Iterable[TrialRecord]) -> bool:
    """Tell whether another precision of this network could reach the front.

    The network is assumed to be `LIKELY_SPEEDUP` times as fast, with a score at the upper end of its interval.
    """
    if not record.feasible or record.quality is None or record.latency is None:
        return False
    hoped = (record.quality.score_high, record.latency.p50_ms / LIKELY_SPEEDUP)
    return not any(as_good(point(member), hoped) for member in front if member.trial != record.trial)


def far_above_ms(score_high: float, rivals: Iterable[Point]) -> float:
    """Return the latency in ms above which a network is not near the front; infinite if there is no such latency.

    Args:
        score_high: Upper end of the interval of the network's score, as a fraction.
        rivals: Points of the members of the front.
    """
    return LIKELY_SPEEDUP * beaten_above_ms(score_high, rivals)


def beaten_above_ms(score_high: float, rivals: Iterable[Point]) -> float:
    """Return the latency in ms above which a network is surely not on the front; infinite if there is no such latency.

    Above it, a member of the front is faster, and at least as accurate as the upper end of the network's interval.

    Args:
        score_high: Upper end of the interval of the network's score, as a fraction.
        rivals: Points of the members of the front.
    """
    return min((p50_ms for score, p50_ms in rivals if score >= score_high), default=math.inf)
