"""What a front is compared with: randomly drawn candidates, and the network that the search began from."""

import math
from collections.abc import Iterable, Sequence

from scalesearch.analysis.front import as_good, hypervolume, pareto_front, point, reference_of
from scalesearch.values.candidate import Scaling
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import Session
from scalesearch.values.settings import SamplerName

RANDOM_START: dict[SamplerName, float] = {"tpe": 10, "gp": 10, "nsga2": 20, "random": math.inf, "growth": 6}
"""Number of trials that a sampler of `samplers.SAMPLERS` draws at random before it learns (NSGA-II: its first
population)."""
LEAST_OBSERVED = 4
"""With fewer measured candidates, `growth` proposes nothing."""
DRAWS_ITS_START: frozenset[SamplerName] = frozenset({"nsga2"})
"""Samplers whose own first population is the random start: it consists of the study's first trials, siblings included.
For the other samplers, the random start is counted without siblings (see `by_chance`)."""


def samplers_of_runs(sampler: SamplerName, stored: Session | None, *, searches: bool) -> tuple[SamplerName, ...] | None:
    """Return `Session.samplers` for a run with this sampler; where the first ones are not known, that stays so.

    Args:
        sampler: The sampler of the run.
        stored: The session of the run before; None for a new study.
        searches: Whether the run asks the sampler; it does not if candidates are given by hand.
    """
    if stored is None:
        return (sampler,) if searches else ()
    if not stored.samplers or not searches or sampler in stored.samplers:
        return stored.samplers
    return (*stored.samplers, sampler)


def start_samplers(session: Session | None) -> tuple[SamplerName, ...]:
    """Return the samplers by which `drawn_by_chance` finds a study's random start; empty if it cannot be known.

    They are those of all its runs. A study of earlier versions does not tell them, so its start is the one that all
    samplers have in common; but if the last one was `random`, it may have been the only one.
    """
    if session is None:
        return ()
    if session.samplers is None:
        return () if session.settings.sampler_name == "random" else tuple(RANDOM_START)
    return session.samplers


def drawn_by_chance(records: Iterable[TrialRecord], samplers: Sequence[SamplerName]) -> tuple[TrialRecord, ...]:
    """Return the records of a study's random start, sorted by trial number: those before any sampler has learned.

    They serve as a random search with a smaller budget. Trial 0 is left out, since this program asks for it (it is
    always the cheapest candidate). Siblings are left out too. There are none where candidates are trained by unlike
    lengths, since those of the start are not trained in full, and none where the whole study is a random search.

    Args:
        records: The whole study.
        samplers: Those of `start_samplers`. A trial counts if it belongs to the random start of each of them.
    """
    asked = sorted((record for record in records if record.sibling_of is None), key=lambda record: record.trial)
    if any(record.full_updates for record in asked) or set(samplers) <= {"random"}:
        return ()
    trials = [record.trial for record in asked]
    return tuple(
        record
        for record in asked
        if record.trial > 0 and all(by_chance(record.trial, trials, sampler) for sampler in samplers)
    )


def by_chance(trial: int, asked: Iterable[int], sampler: SamplerName, *, given: int = 0) -> bool:
    """Tell whether a trial belongs to the sampler's random start.

    Siblings lie around one candidate and say nothing about the rest of the space. Counting them would halve the random
    start: with two siblings for each candidate, the sampler would learn from four networks.

    Args:
        trial: Number of the trial.
        asked: Numbers of the trials that are not siblings of another, in any order.
        sampler: The sampler of the study.
        given: Number of trials before the random start that this program asks for, besides the cheapest candidate.
    """
    before = trial if sampler in DRAWS_ITS_START else sum(number < trial for number in asked)
    return before < RANDOM_START[sampler] + given


def starts_uncut(sampler: SamplerName, *, branches: bool) -> bool:
    """Tell whether the random start, of a small budget up to half of it, is drawn without cut channels.

    Cuts of the best follow it then: as branches, or as the sampler `growth` proposes them.
    """
    return sampler == "growth" or (branches and sampler != "random")


def chance_ends(records: Iterable[TrialRecord], samplers: Sequence[SamplerName]) -> int:
    """Return the first trial number after the random start; 0 without one."""
    return max((record.trial + 1 for record in drawn_by_chance(records, samplers)), default=0)


def chance_front(records: Iterable[TrialRecord], samplers: Sequence[SamplerName]) -> tuple[TrialRecord, ...]:
    """Return the front of `drawn_by_chance`. A repeated answer counts as the trial that it repeats."""
    originals = {record.trial: record for record in records}
    drawn = drawn_by_chance(originals.values(), samplers)
    found = {record.trial if record.same_as is None else record.same_as for record in drawn}
    return pareto_front(originals[trial] for trial in sorted(found) if trial in originals)


def base_network(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """Return the measured trial nearest to the base network itself: dense, fp32, by `distance_from_base`."""
    dense = [
        record
        for record in records
        if record.quality
        and record.latency
        and record.same_as is None
        and not record.short
        and not record.candidate.pruning.any
        and record.candidate.quantization.precision == "fp32"
    ]
    return min(dense, key=lambda record: (distance_from_base(record), record.trial), default=None)


def distance_from_base(record: TrialRecord) -> float:
    """Return the sum of the absolute binary logarithms of all multipliers: 0 for the base network.

    The depth and the kernel count once more where neck, heads or decoder follow them, and another decoder counts as a
    multiplier of 2.
    """
    scaling, usual = record.candidate.scaling, Scaling()
    factors = [scaling.resolution, scaling.depth, scaling.width, scaling.kernel, scaling.neck_width]
    for stage in scaling.stages:
        factors += [stage.depth, stage.width, stage.kernel]
    if scaling.neck_follows in ("width_depth", "all"):
        factors.append(scaling.depth)
    if scaling.neck_follows in ("width_kernel", "all"):
        factors.append(scaling.kernel)
    return sum(abs(math.log2(factor)) for factor in factors) + (scaling.decoder != usual.decoder)


def hypervolume_over_trials(records: Iterable[TrialRecord]) -> tuple[tuple[int, float], ...]:
    """Return (trial, hypervolume of all feasible trials up to it) where it grew, and for the last trial.

    All have the reference of the whole study.
    """
    every = sorted(records, key=lambda each: each.trial)
    reference = reference_of(every)
    best: list[tuple[float, float]] = []
    grown: list[tuple[int, float]] = []
    last = -1
    for record in every:
        last = record.trial
        if not record.feasible or record.same_as is not None:
            continue
        mine = point(record)
        if any(as_good(other, mine) for other in best):
            continue
        best = [other for other in best if not as_good(mine, other)]
        best.append(mine)
        grown.append((record.trial, hypervolume(best, reference)))
    if grown and grown[-1][0] < last:
        grown.append((last, grown[-1][1]))
    return tuple(grown)


def worker_minutes(records: Iterable[TrialRecord]) -> dict[int, float]:
    """Return for each trial the minutes that workers had spent on all trials up to it, by trial number.

    With two workers, half as much time had passed on the clock.
    """
    spent_s, minutes = 0.0, {}
    for record in sorted(records, key=lambda each: each.trial):
        spent_s += sum(stage.seconds for stage in record.stages)
        minutes[record.trial] = spent_s / 60
    return minutes


def front_steps(front: Sequence[TrialRecord]) -> tuple[list[float], list[float]]:
    """Return latencies (ms) and scores (%) of a front, fastest first, ready to be drawn as steps."""
    points = [point(record) for record in front]
    return [float(f"{p50_ms:.5g}") for _, p50_ms in points], [round(100 * score, 3) for score, _ in points]
