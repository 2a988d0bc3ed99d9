"""What a front is compared with: candidates drawn by chance, and the network that the search began from."""

import math
from collections.abc import Iterable, Sequence

from scalesearch.search.front import REFERENCE, Point, hypervolume, pareto_front, point
from scalesearch.values.record import TrialRecord
from scalesearch.values.settings import SamplerName

RANDOM_START: dict[SamplerName, float] = {"tpe": 10, "gp": 10, "nsga2": 20, "random": math.inf}
"""Trials that a sampler of `samplers.SAMPLERS` draws by chance before it learns (NSGA-II: its first population)."""
DRAWS_ITS_START: frozenset[SamplerName] = frozenset({"nsga2"})
"""They draw their first population themselves and mark it as such: all trials are in it. The start of the others is
counted without siblings (see `by_chance`)."""


def drawn_by_chance(records: Iterable[TrialRecord], sampler: SamplerName) -> tuple[TrialRecord, ...]:
    """The records of the sampler's random start, by trial number: a random search of a smaller budget.

    Trial 0 is left out (it is always the cheapest candidate, asked by us), and so are siblings.
    """
    asked = sorted((record for record in records if record.sibling_of is None), key=lambda record: record.trial)
    trials = [record.trial for record in asked]
    return tuple(record for record in asked if record.trial > 0 and by_chance(record.trial, trials, sampler))


def by_chance(trial: int, asked: Iterable[int], sampler: SamplerName) -> bool:
    """Whether a trial belongs to the sampler's random start.

    Siblings fill the place around one candidate and say nothing of the rest of the space. Counted in, they would halve
    the start: with two to each candidate, the sampler would learn from four networks.

    Args:
        trial: Its number.
        asked: Numbers of the trials that are nobody's siblings, in any order.
        sampler: The study's.
    """
    before = trial if sampler in DRAWS_ITS_START else sum(number < trial for number in asked)
    return before < RANDOM_START[sampler]


def chance_ends(records: Iterable[TrialRecord], sampler: SamplerName) -> float:
    """The first trial number after the random start; infinite for a random search."""
    if math.isinf(RANDOM_START[sampler]):
        return math.inf
    return max((record.trial + 1 for record in drawn_by_chance(records, sampler)), default=0)


def chance_front(records: Iterable[TrialRecord], sampler: SamplerName) -> tuple[TrialRecord, ...]:
    """The front of `drawn_by_chance`; repeats stand for what they repeat."""
    originals = {record.trial: record for record in records}
    drawn = drawn_by_chance(originals.values(), sampler)
    found = {record.trial if record.same_as is None else record.same_as for record in drawn}
    return pareto_front(originals[trial] for trial in sorted(found) if trial in originals)


def base_network(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The measured trial that is nearest to the base network itself: dense, fp32, multipliers nearest 1."""
    dense = [
        record
        for record in records
        if record.quality
        and record.latency
        and record.same_as is None
        and not record.candidate.pruning.any
        and record.candidate.quantization.precision == "fp32"
    ]
    return min(dense, key=lambda record: (distance_from_base(record), record.trial), default=None)


def distance_from_base(record: TrialRecord) -> float:
    """Sum of the absolute binary logarithms of all multipliers: 0 is the base network."""
    scaling = record.candidate.scaling
    factors = [scaling.resolution, scaling.depth, scaling.width, scaling.kernel]
    for stage in scaling.stages:
        factors += [stage.depth, stage.width, stage.kernel]
    return sum(abs(math.log2(factor)) for factor in factors)


def hypervolume_over_trials(
    records: Iterable[TrialRecord], reference: Point = REFERENCE
) -> tuple[tuple[int, float], ...]:
    """(trial, hypervolume of everything feasible up to it) wherever it grew, and at the last trial."""
    best: list[tuple[float, float]] = []
    grown: list[tuple[int, float]] = []
    last = -1
    for record in sorted(records, key=lambda each: each.trial):
        last = record.trial
        if not record.feasible or record.same_as is not None:
            continue
        top1, p50_ms = point(record)
        if any(other[0] >= top1 and other[1] <= p50_ms for other in best):
            continue
        best = [other for other in best if not (top1 >= other[0] and p50_ms <= other[1])]
        best.append((top1, p50_ms))
        grown.append((record.trial, hypervolume(best, reference)))
    if grown and grown[-1][0] < last:
        grown.append((last, grown[-1][1]))
    return tuple(grown)


def front_steps(front: Sequence[TrialRecord]) -> tuple[list[float], list[float]]:
    """Latencies (ms) and accuracies (%) of a front, fastest first, ready to be drawn as steps."""
    points = [point(record) for record in front]
    return [float(f"{p50_ms:.5g}") for _, p50_ms in points], [round(100 * top1, 3) for top1, _ in points]
