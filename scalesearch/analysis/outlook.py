"""What a study may still find: the front that a model of its trials expects, and the candidates that promise most.

The model is made from the records alone, whichever sampler the study has; only `growth` searches by it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from scalesearch.analysis.belief import (
    Belief,
    Errors,
    Features,
    at_length,
    observations_of,
    timed_of,
    within_limits,
    without_calibration,
)
from scalesearch.analysis.front import hypervolume, knee, pareto_front, point, undominated
from scalesearch.analysis.simple_ways import SimpleWays, simple_ways
from scalesearch.spaces.axes import Value
from scalesearch.spaces.moves import drawn, moved
from scalesearch.spaces.suggest import sampled_values
from scalesearch.values.candidate import Candidate
from scalesearch.values.record import TrialRecord
from scalesearch.values.space import STEPS, SearchSpace

FEWEST: Final = 8
"""With fewer measured trials, nothing is said."""
_DRAWN: Final = 1500
_MOVES: Final = 500
_BEST: Final = 5
_CALIBRATION: Final = frozenset(
    {"quantization.calibration", "quantization.calibration_images", "quantization.clip_percentile"}
)
"""The axes that `without_calibration` sets back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What is expected of a candidate that was not tried, or only in a shorter training."""

    candidate: Candidate
    score: float
    score_sd: float
    p50_ms: float
    log_ms_sd: float
    """Standard deviation of the logarithm of the latency."""
    growth: float | None
    """Expected growth of the front's hypervolume, as a fraction of it; None where there is no front yet."""
    trained: int = 0
    """Updates of its training so far; 0 if there was none."""
    sampled: Mapping[str, Value] = field(default_factory=dict)
    """Its values of the sampled axes that have an effect on it, by name. The length is left out where all have the
    full one, and so is the calibration, in which candidates that count as one differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The expected front, the most promising candidates, and how far the model can be trusted."""

    front: tuple[Promise, ...]
    """Fastest first; tried and untried candidates."""
    best: tuple[Promise, ...]
    """Untried candidates, the most promising first."""
    errors: Errors | None
    """None with few networks."""
    considered: int
    """Number of candidates among which the front and the best were looked for."""
    simple: SimpleWays | None = None
    """What simpler ways would have found; None where nobody asked, or where the space leaves them no choice."""


def outlook(
    space: SearchSpace, records: Sequence[TrialRecord], *, seed: int = 0, simple: bool = True
) -> Outlook | None:
    """Return what may still be found; None with fewer than `FEWEST` measured trials, or if nothing is sampled.

    Where candidates are trained by unlike lengths, all is about full length.

    Args:
        space: The search space.
        records: All trials of the study.
        seed: Of the candidates that are looked at.
        simple: Whether to find out what simpler ways would have found, which takes most of the time.
    """
    observed = observations_of(records)
    if len(observed) < FEWEST or Features(space).of([observed[0].candidate]).size == 0:
        return None
    full = max((record.full_updates for record in records), default=0)
    belief = Belief(space, observed, full_updates=full, timed=timed_of(records, space.limits.max_latency_ms))
    tried = {each.candidate: None for each in observed}
    trained = dict[Candidate, int]()
    for one in tried:
        whole = without_calibration(at_length(one, full))
        trained[whole] = max(one.recipe.steps, trained.get(whole, 0))
    outside = {at_length(each.candidate, full) for each in observed if not each.feasible}
    drawn_ones = dict.fromkeys(at_length(each, full) for each in _candidates(space, list(tried), seed=seed))
    wanted = [each for each in drawn_ones if each not in outside]
    pool = within_limits(space, observed, wanted)
    if not pool:
        return None
    expected = belief.expect(pool)
    reference = belief.reference(pool)
    growth = belief.growth(pool, reference)
    size = hypervolume((point(record) for record in records if record.feasible), reference)
    promises = [
        Promise(
            candidate=candidate,
            score=float(expected.score[0][place]),
            score_sd=float(expected.score[1][place]),
            p50_ms=math.exp(expected.log_ms[0][place]),
            log_ms_sd=float(expected.log_ms[1][place]),
            growth=float(growth[place]) / size if size else None,
            trained=trained.get(without_calibration(candidate), 0),
        )
        for place, candidate in enumerate(pool)
    ]
    limit_ms = space.limits.max_latency_ms or math.inf
    fast_enough = [place for place, each in enumerate(promises) if each.p50_ms <= limit_ms]
    known = {without_calibration(candidate) for candidate in tried}
    untried = dict[Candidate, Promise]()
    for place in sorted(fast_enough, key=lambda place: -growth[place]):
        if (one := without_calibration(pool[place])) not in known:
            untried.setdefault(one, promises[place])
    front = undominated([promises[place] for place in fast_enough], lambda each: (each.score, each.p50_ms))
    return Outlook(
        front=tuple(_with_sampled(each, space, full) for each in front),
        best=tuple(_with_sampled(each, space, full) for each in list(untried.values())[:_BEST]),
        errors=belief.errors(),
        considered=len(pool),
        simple=_simple(space, belief, records, seed) if simple else None,
    )


def _with_sampled(each: Promise, space: SearchSpace, full_updates: int) -> Promise:
    left_out = _CALIBRATION | ({STEPS} if full_updates else set())
    sampled = sampled_values(each.candidate, space).items()
    return replace(each, sampled={name: value for name, value in sampled if name not in left_out})


def _simple(space: SearchSpace, belief: Belief, records: Sequence[TrialRecord], seed: int) -> SimpleWays | None:
    best = knee(pareto_front(records))
    return simple_ways(space, belief, knee=best.candidate, seed=seed) if best else None


def _candidates(space: SearchSpace, tried: Sequence[Candidate], *, seed: int) -> list[Candidate]:
    """Return the tried candidates, their neighbours, and random ones, each once."""
    random = np.random.default_rng(seed)
    found = dict.fromkeys(tried)
    for _ in range(_MOVES):
        found[moved(tried[int(random.integers(len(tried)))], space, random)] = None
    for _ in range(_DRAWN):
        found[drawn(space, random)] = None
    return list(found)
