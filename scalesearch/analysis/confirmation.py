"""How full training changed a front: moves, the new front, rank agreement and the winner's curse. No I/O."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from scalesearch.analysis.confirmed_latency import timed
from scalesearch.analysis.front import dominates, latencies_overlap, overlap
from scalesearch.analysis.ranks import RankAgreement, rank_agreement
from scalesearch.analysis.score_error import variance
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.latency import Latency
from scalesearch.values.quality import Z_975, Quality
from scalesearch.values.record import FrontScore, MeasuredTrial, TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedMean:
    """Mean score over the seeds, as a fraction."""

    score: float
    low: float
    high: float
    """The 95 % interval, from the error of the images (which all seeds share) and that of the seeds together."""
    lowest: float
    highest: float
    """Together with `lowest`: the extremes over the seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One confirmed trial (mostly a front member): what the search measured, and what full training made of it."""

    record: MeasuredTrial
    seeds: int
    steps: int
    validation: SeedMean
    """Score on the same images on which the search scored the trial."""
    test: SeedMean
    latency: Latency
    timed_together: bool
    """Whether the latency comes from the session that timed all confirmed trials in turn, or most of them."""
    on_front: bool
    """Whether no other confirmed trial is at least as accurate (full validation) and as fast, and better in one of the
    two."""
    beaten_by: tuple[int, ...] = ()
    added: bool = False
    """Whether the trial was confirmed although it was not on the searched front."""
    ties: tuple[int, ...] = ()
    """Confirmed trials that cannot be told from it: the intervals of both validation score and latency overlap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitGap:
    """Mean over the members of validation minus test score, as a fraction, with its 95 % interval."""

    mean: float
    half: float
    """Half of the 95 % interval, from the errors of the scores alone: all members are scored on the same images, so
    their errors do not average out."""
    members: int

    @property
    def beyond_chance(self) -> bool:
        """Whether the gap is larger than half its interval, that is, different from 0."""
        return abs(self.mean) > self.half


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The whole result. The moves are sorted from fast to slow by their new latency."""

    moves: tuple[Move, ...]
    ranks: RankAgreement | None
    """Rank agreement of brief and full validation score; None where fewer than three members differ, or one never
    varies."""
    brief_gap: SplitGap | None
    """Gap of the models that the search made. It contains the luck of the selection and the difference in difficulty
    between the two splits."""
    full_gap: SplitGap | None
    """Gap of the networks trained anew. They were not selected by these scores, so no luck of a selection is in it."""
    winners_curse: float | None
    """How much the luck of the selection had added: `brief_gap` minus `full_gap` over the same members.

    None where the splits themselves differ (`splits_differ`): such a gap grows with training and hides the luck.
    """
    left_out: tuple[ConfirmedRun, ...] = ()
    """Runs of other lengths than that of the moves, from earlier versions (`confirmed_lengths.of_one_length`)."""

    @property
    def splits_differ(self) -> bool:
        """Whether validation and test differ in difficulty even for networks that were selected by neither."""
        return self.full_gap is not None and self.full_gap.beyond_chance

    @property
    def fallen(self) -> tuple[Move, ...]:
        """Members of the searched front that are no longer on the front."""
        return tuple(move for move in self.moves if not move.on_front and not move.added)


def confirm_moves(
    front: Iterable[MeasuredTrial],
    runs: Iterable[ConfirmedRun],
    scores: Iterable[FrontScore] = (),
    *,
    added: Iterable[MeasuredTrial] = (),
    left_out: Iterable[ConfirmedRun] = (),
) -> Confirmation | None:
    """Compare trials as the search measured them with their full-length runs; None where none of them has a run.

    The new front is decided by validation score, so that the test numbers are free of selection.

    Args:
        front: Members of the searched front.
        runs: Confirmed runs of one length; those of trials that are neither in `front` nor in `added` are ignored.
        scores: Test scores of the search's own files.
        added: Trials off the searched front that were confirmed as well (`added_trials`).
        left_out: Runs of other lengths, which are told of and not compared.
    """
    by_trial: dict[int, list[ConfirmedRun]] = {}
    for run in runs:
        by_trial.setdefault(run.trial, []).append(run)
    added = tuple(added)
    members = [(record, by_trial[record.trial]) for record in (*front, *added) if record.trial in by_trial]
    if not members:
        return None
    spread = {name: _pooled_sd([_scores(own, name) for _, own in members]) for name in ("validation", "test")}
    off = {record.trial for record in added}
    session = _shared_session([timed(own) for _, own in members])
    moves = [_move(record, own, spread, added=record.trial in off, session=session) for record, own in members]
    moves = sorted((_placed(move, moves) for move in moves), key=lambda m: (m.latency.p50_ms, m.record.trial))
    tested = {score.trial: score.test for score in scores}
    brief_gap = _gap([(_brief(move), [tested[move.record.trial]]) for move in moves if move.record.trial in tested])
    full_gap = _gap([([r.validation for r in own], [r.test for r in own]) for _, own in members])
    same = _gap([([r.validation for r in own], [r.test for r in own]) for m, own in members if m.trial in tested])
    alike = full_gap is not None and not full_gap.beyond_chance
    return Confirmation(
        moves=tuple(moves),
        ranks=rank_agreement([_brief(move)[0].score for move in moves], [move.validation.score for move in moves]),
        brief_gap=brief_gap,
        full_gap=full_gap,
        winners_curse=brief_gap.mean - same.mean if brief_gap and same and alike else None,
        left_out=tuple(left_out),
    )


def added_trials(
    front: Sequence[MeasuredTrial], records: Iterable[TrialRecord], runs: Sequence[ConfirmedRun]
) -> tuple[MeasuredTrial, ...]:
    """Return the confirmed, feasible trials that are off the front, by trial number; all `runs` are of one length."""
    members, confirmed = {record.trial for record in front}, {run.trial for run in runs}
    off = (each.measured for each in records if each.feasible and each.same_as is None and each.trial not in members)
    return tuple(
        sorted((record for record in off if record and record.trial in confirmed), key=lambda record: record.trial)
    )


def _shared_session(runs: Sequence[ConfirmedRun]) -> tuple[int, ...]:
    """Return the timing session (its trials) that most of the runs come from; empty where no two share one."""
    sessions = Counter(run.timed_together for run in runs if run.timed_together)
    most, count = max(sessions.items(), key=lambda one: (one[1], len(one[0])), default=((), 0))
    return most if count > 1 or len(runs) == 1 else ()


def _move(
    record: MeasuredTrial,
    runs: Sequence[ConfirmedRun],
    spread: dict[str, float],
    *,
    added: bool,
    session: tuple[int, ...],
) -> Move:
    chosen = timed(runs)
    return Move(
        record=record,
        seeds=len(runs),
        steps=chosen.steps,
        validation=_seed_mean([run.validation for run in runs], spread["validation"]),
        test=_seed_mean([run.test for run in runs], spread["test"]),
        latency=chosen.latency,
        timed_together=bool(session) and chosen.timed_together == session,
        on_front=True,
        added=added,
    )


def _placed(move: Move, moves: Sequence[Move]) -> Move:
    others = [other for other in moves if other.record.trial != move.record.trial]
    beaten_by = tuple(other.record.trial for other in others if _beats(other, move))
    ties = tuple(other.record.trial for other in others if _is_tie(move, other))
    return replace(move, on_front=not beaten_by, beaten_by=beaten_by, ties=ties)


def _beats(one: Move, other: Move) -> bool:
    return dominates((one.validation.score, one.latency.p50_ms), (other.validation.score, other.latency.p50_ms))


def _is_tie(one: Move, other: Move) -> bool:
    scores = [(each.validation.low, each.validation.high) for each in (one, other)]
    return overlap(*scores) and latencies_overlap(one.latency, other.latency)


def _scores(runs: Sequence[ConfirmedRun], split: str) -> list[float]:
    return [getattr(run, split).score for run in runs]


def _pooled_sd(groups: Sequence[Sequence[float]]) -> float:
    """Return the standard deviation between seeds, pooled over the members.

    Pooling is needed because the few seeds of a single member would give too rough an estimate.
    """
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return 0.0
    squares = sum(sum((value - statistics.fmean(group)) ** 2 for value in group) for group in groups)
    return math.sqrt(squares / freedom)


def _seed_mean(qualities: Sequence[Quality], seed_sd: float) -> SeedMean:
    scores = [quality.score for quality in qualities]
    mean, of_seeds = statistics.fmean(scores), Z_975 * seed_sd / math.sqrt(len(scores))
    below = statistics.fmean(quality.score - quality.score_low for quality in qualities)
    above = statistics.fmean(quality.score_high - quality.score for quality in qualities)
    return SeedMean(
        score=mean,
        low=max(0.0, mean - math.hypot(below, of_seeds)),
        high=min(1.0, mean + math.hypot(above, of_seeds)),
        lowest=min(scores),
        highest=max(scores),
    )


def _brief(move: Move) -> list[Quality]:
    return [move.record.quality]


def _gap(pairs: Sequence[tuple[Sequence[Quality], Sequence[Quality]]]) -> SplitGap | None:
    if not pairs:
        return None
    gaps = [statistics.fmean(q.score for q in ours) - statistics.fmean(q.score for q in tests) for ours, tests in pairs]
    squared = statistics.fmean(variance(ours[0]) + variance(tests[0]) for ours, tests in pairs)
    return SplitGap(mean=statistics.fmean(gaps), half=Z_975 * math.sqrt(squared), members=len(gaps))
