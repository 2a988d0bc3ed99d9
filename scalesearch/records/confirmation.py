"""What full training made of a front: moves, the front then, rank agreement and the winner's curse. Pure numbers."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from scalesearch.records.ranks import RankAgreement, rank_agreement
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import FrontScore, Latency, Quality, TrialRecord

_Z_95 = 1.959964
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedMean:
    """Mean top-1 over the seeds, as a fraction."""

    top1: float
    low: float
    high: float
    """95 % interval: of the images (which all seeds share) and of the seeds together."""
    lowest: float
    highest: float
    """Of the seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One front member: what the search saw, and what full training made of it."""

    record: TrialRecord
    seeds: int
    steps: int
    validation: SeedMean
    """On the very images that the search judged it by."""
    test: SeedMean
    latency: Latency
    timed_together: bool
    """Its latency comes from the session that timed all members in turn."""
    on_front: bool
    """No other confirmed member is at least as accurate (full validation) and as fast, and better in one of them."""
    beaten_by: tuple[int, ...] = ()
    ties: tuple[int, ...] = ()
    """Members that the intervals of validation accuracy and latency cannot tell from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitGap:
    """Mean over members of validation less test top-1, as a fraction, and its 95 % chance."""

    mean: float
    half: float
    """Half the 95 % interval by the numbers of images alone: all members meet the same ones, so they err alike."""
    members: int

    @property
    def beyond_chance(self) -> bool:
        """Whether it differs from nothing by more than its error."""
        return abs(self.mean) > self.half


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """All of it; moves from fast to slow by the latency now."""

    moves: tuple[Move, ...]
    ranks: RankAgreement | None
    """Brief against full validation top-1; None where three members do not differ."""
    brief_gap: SplitGap | None
    """Of the search's own files: selection's luck, and that the two splits are not equally hard."""
    full_gap: SplitGap | None
    """Of the networks trained anew, which were not selected by these scores: the splits alone."""
    winners_curse: float | None
    """`brief_gap` less `full_gap` over the same members: what luck in the selection had added.

    None where the splits themselves differ (`splits_differ`): such a gap grows with training, and hides the luck.
    """

    @property
    def splits_differ(self) -> bool:
        """Whether validation and test are unlike even for networks that neither of them chose."""
        return self.full_gap is not None and self.full_gap.beyond_chance

    @property
    def fallen(self) -> tuple[Move, ...]:
        """Members that are on the front no longer."""
        return tuple(move for move in self.moves if not move.on_front)


def confirm_moves(
    front: Iterable[TrialRecord], runs: Iterable[ConfirmedRun], scores: Iterable[FrontScore] = ()
) -> Confirmation | None:
    """What the runs say of the members that have one; None where none has.

    Membership goes by validation accuracy, so that the test numbers are no selection's winners themselves.

    Args:
        front: Members of the searched front.
        runs: All confirmed runs; those of other trials are passed over.
        scores: The brief files' own test scores.
    """
    by_trial: dict[int, list[ConfirmedRun]] = {}
    for run in runs:
        by_trial.setdefault(run.trial, []).append(run)
    members = [(record, by_trial[record.trial]) for record in front if record.trial in by_trial]
    if not members:
        return None
    spread = {name: _pooled_sd([_top1s(own, name) for _, own in members]) for name in ("validation", "test")}
    moves = [_move(record, own, spread) for record, own in members]
    moves = sorted((_placed(move, moves) for move in moves), key=lambda m: (m.latency.p50_ms, m.record.trial))
    tested = {score.trial: score.test for score in scores}
    brief_gap = _gap([(_brief(move), [tested[move.record.trial]]) for move in moves if move.record.trial in tested])
    full_gap = _gap([([r.validation for r in own], [r.test for r in own]) for _, own in members])
    same = _gap([([r.validation for r in own], [r.test for r in own]) for m, own in members if m.trial in tested])
    alike = full_gap is not None and not full_gap.beyond_chance
    return Confirmation(
        moves=tuple(moves),
        ranks=rank_agreement([_brief(move)[0].top1 for move in moves], [move.validation.top1 for move in moves]),
        brief_gap=brief_gap,
        full_gap=full_gap,
        winners_curse=brief_gap.mean - same.mean if brief_gap and same and alike else None,
    )


def timed(runs: Sequence[ConfirmedRun]) -> ConfirmedRun:
    """The run of one member whose latency counts: from the session that timed all in turn, else the first seed's."""
    return next((run for run in runs if run.timed_together), runs[0])


def mean_latency(rounds: Sequence[Latency]) -> Latency:
    """One latency of several rounds: means, and an interval that holds every round's, so that order effects show."""

    def mean(name: str) -> float:
        return statistics.fmean(getattr(each, name) for each in rounds)

    def seen_mean(name: str) -> float | None:
        seen = [value for each in rounds if (value := getattr(each, name)) is not None]
        return statistics.fmean(seen) if seen else None

    names = ("p50_ms", "raw_p50_ms", "raw_p90_ms", "raw_p99_ms", "reference_p50_ms", "ratio")
    return Latency(
        **{name: mean(name) for name in names},
        p50_low_ms=min(each.p50_low_ms for each in rounds),
        p50_high_ms=max(each.p50_high_ms for each in rounds),
        raw_min_ms=min(each.raw_min_ms for each in rounds),
        runs=sum(each.runs for each in rounds),
        batch=rounds[0].batch,
        stable=all(each.stable for each in rounds),
        enqueue_p50_ms=seen_mean("enqueue_p50_ms"),
        calm_fraction=seen_mean("calm_fraction"),
        raw_calm_p50_ms=seen_mean("raw_calm_p50_ms"),
        raw_disturbed_p50_ms=seen_mean("raw_disturbed_p50_ms"),
        reference_lowest_ms=seen_mean("reference_lowest_ms"),
    )


def _move(record: TrialRecord, runs: Sequence[ConfirmedRun], spread: dict[str, float]) -> Move:
    chosen = timed(runs)
    return Move(
        record=record,
        seeds=len(runs),
        steps=chosen.steps,
        validation=_seed_mean([run.validation for run in runs], spread["validation"]),
        test=_seed_mean([run.test for run in runs], spread["test"]),
        latency=chosen.latency,
        timed_together=bool(chosen.timed_together),
        on_front=True,
    )


def _placed(move: Move, moves: Sequence[Move]) -> Move:
    others = [other for other in moves if other.record.trial != move.record.trial]
    beaten_by = tuple(other.record.trial for other in others if _beats(other, move))
    ties = tuple(other.record.trial for other in others if _is_tie(move, other))
    return replace(move, on_front=not beaten_by, beaten_by=beaten_by, ties=ties)


def _beats(one: Move, other: Move) -> bool:
    here, there = (one.validation.top1, -one.latency.p50_ms), (other.validation.top1, -other.latency.p50_ms)
    return here != there and here[0] >= there[0] and here[1] >= there[1]


def _is_tie(one: Move, other: Move) -> bool:
    return (
        one.validation.low <= other.validation.high
        and other.validation.low <= one.validation.high
        and one.latency.p50_low_ms <= other.latency.p50_high_ms
        and other.latency.p50_low_ms <= one.latency.p50_high_ms
    )


def _top1s(runs: Sequence[ConfirmedRun], split: str) -> list[float]:
    return [getattr(run, split).top1 for run in runs]


def _pooled_sd(groups: Sequence[Sequence[float]]) -> float:
    """Standard deviation from one seed to the next, pooled over the members: two seeds of one member say too little."""
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return 0.0
    squares = sum(sum((value - statistics.fmean(group)) ** 2 for value in group) for group in groups)
    return math.sqrt(squares / freedom)


def _seed_mean(qualities: Sequence[Quality], seed_sd: float) -> SeedMean:
    top1s = [quality.top1 for quality in qualities]
    mean, of_seeds = statistics.fmean(top1s), _Z_95 * seed_sd / math.sqrt(len(top1s))
    below = statistics.fmean(quality.top1 - quality.top1_low for quality in qualities)
    above = statistics.fmean(quality.top1_high - quality.top1 for quality in qualities)
    return SeedMean(
        top1=mean,
        low=max(0.0, mean - math.hypot(below, of_seeds)),
        high=min(1.0, mean + math.hypot(above, of_seeds)),
        lowest=min(top1s),
        highest=max(top1s),
    )


def _brief(move: Move) -> list[Quality]:
    assert move.record.quality is not None  # a front member is complete
    return [move.record.quality]


def _gap(pairs: Sequence[tuple[Sequence[Quality], Sequence[Quality]]]) -> SplitGap | None:
    if not pairs:
        return None
    gaps = [statistics.fmean(q.top1 for q in ours) - statistics.fmean(q.top1 for q in tests) for ours, tests in pairs]
    variance = statistics.fmean(_variance(ours[0]) + _variance(tests[0]) for ours, tests in pairs)
    return SplitGap(mean=statistics.fmean(gaps), half=_Z_95 * math.sqrt(variance), members=len(gaps))


def _variance(quality: Quality) -> float:
    return quality.top1 * (1 - quality.top1) / quality.images
