"""The Pareto front and what is read off it. Pure: records and pairs in, records and numbers out."""

import math
from collections.abc import Iterable, Sequence

from scalesearch.errors import ConfigError
from scalesearch.values.record import TrialRecord

Point = tuple[float, float]
"""(top1 as a fraction, p50_ms)."""

REFERENCE: Point = (0.0, 1000.0)
"""Nothing right, and one second: fixed, so that hypervolumes of all runs on one device and data set compare."""


def point(record: TrialRecord) -> Point:
    """(top1, p50_ms) of a record that has both."""
    if record.quality is None or record.latency is None:
        msg = f"trial {record.trial} has no accuracy and latency; only complete trials have a point"
        raise ValueError(msg)
    return (record.quality.top1, record.latency.p50_ms)


def _dominates(one: Point, other: Point) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1]


def pareto_front(records: Iterable[TrialRecord]) -> tuple[TrialRecord, ...]:
    """The feasible records that no other one beats in both objectives, fastest first; equal points all stay.

    Answers repeated from an earlier record (`same_as`) are left out.

    Raises:
        ConfigError: If the records were measured on unlike devices or at unlike batches, which do not compare.
    """
    feasible = [record for record in records if record.feasible and record.same_as is None]
    _refuse_unlike_devices(feasible)
    # In this order a point is beaten exactly if an earlier one is at least as accurate, its equals excepted.
    feasible.sort(key=lambda record: (point(record)[1], -point(record)[0], record.trial))
    front: list[TrialRecord] = []
    for record in feasible:
        if not front or point(record)[0] > point(front[-1])[0] or point(record) == point(front[-1]):
            front.append(record)
    return tuple(front)


def _refuse_unlike_devices(records: Sequence[TrialRecord]) -> None:
    for record in records[1:]:
        assert record.latency and records[0].latency
        if record.latency.batch != records[0].latency.batch:
            msg = (
                f"latencies of unlike batches never share a front: trial {records[0].trial} was timed at batch "
                f"{records[0].latency.batch}, trial {record.trial} at {record.latency.batch}; keep one study for each"
            )
            raise ConfigError(msg)
        if record.device != records[0].device:
            msg = (
                f"latencies of unlike devices never share a front: trial {records[0].trial} was measured on "
                f"{records[0].device}, trial {record.trial} on {record.device}; keep one study for each device"
            )
            raise ConfigError(msg)


def hypervolume(points: Iterable[Point], reference: Point = REFERENCE) -> float:
    """The area that the points dominate, accuracy times ln(latency), up to `reference`.

    Latency enters by its logarithm, so that halving it is worth as much at 10 ms as at 1 ms. A point that does not
    beat the reference in both counts nothing.
    """
    area, best_top1 = 0.0, reference[0]
    # From the fastest on, each point adds the strip between the best accuracy so far and its own.
    for top1, p50_ms in sorted(points, key=lambda each: each[1]):
        if top1 > best_top1 and p50_ms < reference[1]:
            area += (top1 - best_top1) * math.log(reference[1] / p50_ms)
            best_top1 = top1
    return area


def knee(front: Sequence[TrialRecord], *, accuracy: float = 1.0, latency: float = 1.0) -> TrialRecord | None:
    """The front's point of balance: furthest above the chord between its ends; None for an empty front.

    Both objectives are first scaled to 0..1 over the front, latency by its logarithm; `accuracy` and `latency` weigh
    them. Where nothing bends (two points, a straight line), it is the most accurate of the equals. Reference: Das, "On
    characterizing the knee of the Pareto curve", Structural Optimization 18 (1999).
    """
    if not front:
        return None
    heights = {
        record.trial: (round(accuracy * gain - latency * cost, 9), point(record)[0])
        for record, (gain, cost) in zip(front, picture(front), strict=True)
    }
    return max(front, key=lambda record: heights[record.trial])


def picture(front: Sequence[TrialRecord]) -> tuple[Point, ...]:
    """(accuracy, log latency) of each member, both scaled to 0..1 over the front: where knee and distances are seen."""
    top1s = [point(record)[0] for record in front]
    logs = [math.log(point(record)[1]) for record in front]
    return tuple(zip(_unit(top1s), _unit(logs), strict=True))


def _unit(values: Sequence[float]) -> list[float]:
    span = max(values) - min(values) or 1.0
    return [(value - min(values)) / span for value in values]


def ties(front: Sequence[TrialRecord]) -> tuple[tuple[int, int], ...]:
    """Pairs of trial numbers whose 95 % intervals overlap in accuracy and in latency: the data cannot tell them apart.

    Pairs, not groups: A may tie with B and B with C while A and C differ.
    """
    return tuple(
        (one.trial, other.trial) for i, one in enumerate(front) for other in front[i + 1 :] if _is_tie(one, other)
    )


def _is_tie(one: TrialRecord, other: TrialRecord) -> bool:
    point(one), point(other)  # both have what is compared below
    assert one.quality and other.quality and one.latency and other.latency
    return (
        one.quality.top1_low <= other.quality.top1_high
        and other.quality.top1_low <= one.quality.top1_high
        and one.latency.p50_low_ms <= other.latency.p50_high_ms
        and other.latency.p50_low_ms <= one.latency.p50_high_ms
    )
