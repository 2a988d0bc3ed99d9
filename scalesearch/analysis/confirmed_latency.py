"""Reduce the runs of a confirmed trial, and the rounds of a timing session, to one latency. No I/O."""

import statistics
from collections.abc import Sequence

from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.latency import Latency


def timed(runs: Sequence[ConfirmedRun]) -> ConfirmedRun:
    """Return the run of one member whose latency counts.

    That is the run from the session that timed all members in turn, or else the first one (the first seed's).
    """
    return next((run for run in runs if run.timed_together), runs[0])


def mean_latency(rounds: Sequence[Latency]) -> Latency:
    """Return one latency for several rounds.

    Its numbers are means. Its interval contains those of all rounds, so it also shows whether the order of timing
    changed the result.
    """

    def mean(name: str) -> float:
        return statistics.fmean(getattr(each, name) for each in rounds)

    def seen_mean(name: str) -> float | None:
        seen = [value for each in rounds if (value := getattr(each, name)) is not None]
        return statistics.fmean(seen) if seen else None

    return Latency(
        p50_ms=mean("p50_ms"),
        raw_p50_ms=mean("raw_p50_ms"),
        raw_p90_ms=mean("raw_p90_ms"),
        raw_p99_ms=mean("raw_p99_ms"),
        reference_p50_ms=mean("reference_p50_ms"),
        ratio=mean("ratio"),
        p50_low_ms=min(each.p50_low_ms for each in rounds),
        p50_high_ms=max(each.p50_high_ms for each in rounds),
        raw_min_ms=min(each.raw_min_ms for each in rounds),
        runs=sum(each.runs for each in rounds),
        batch=rounds[0].batch,
        stable=all(each.stable for each in rounds),
        coarse=any(each.coarse for each in rounds),
        enqueue_p50_ms=seen_mean("enqueue_p50_ms"),
        calm_fraction=seen_mean("calm_fraction"),
        raw_calm_p50_ms=seen_mean("raw_calm_p50_ms"),
        raw_disturbed_p50_ms=seen_mean("raw_disturbed_p50_ms"),
        reference_lowest_ms=seen_mean("reference_lowest_ms"),
        postprocessing=rounds[0].postprocessing,
        objective=rounds[0].objective,
    )
