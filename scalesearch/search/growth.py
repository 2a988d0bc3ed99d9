"""Propose the candidate that is expected to enlarge the front most for its cost, by a model of the study's own trials.

Like siblings and branches, the proposals are queued in Optuna's study, so that they are kept and shown like any other.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from scalesearch.analysis.belief import Belief, Features, Observation
from scalesearch.analysis.front import REFERENCE, Point, undominated
from scalesearch.analysis.log_linear import LogLinear
from scalesearch.spaces.moves import drawn, moved
from scalesearch.values.candidate import Candidate, Pruning, Quantization
from scalesearch.values.record import TrialRecord
from scalesearch.values.space import SearchSpace

POOL: Final = 256
MUTANTS: Final = 0.7
"""The part of the pool that consists of members of the front, moved by one or two steps."""
FIXED_COST: Final = 0.15
"""What an export, a score and a timing cost, in brief trainings; measured on two cores (docs/measurements.md)."""
MOST_CHECKED: Final = 24
"""So many of the best of the pool are planned, until one of them is new and within the limits."""
_CALIBRATION: Final = ("calibration", "calibration_images", "clip_percentile")
_PLAIN: Final = Quantization()
LEAST_OBSERVED: Final = 4
"""With fewer measured candidates, nothing is proposed."""


def propose(
    space: SearchSpace,
    observed: Sequence[Observation],
    *,
    running: Sequence[Candidate],
    cost: Callable[[Candidate], float],
    is_open: Callable[[Candidate], bool],
    seed: int,
    pool: Sequence[Candidate] = (),
    reference: Point = REFERENCE,
) -> Candidate | None:
    """Return the candidate to try next; None if nothing can be proposed.

    Args:
        space: The search space.
        observed: What was measured, oldest first.
        running: Candidates whose results are not known yet. The model takes them for observed, with what it expects.
        cost: Returns what a candidate costs, in trainings or seconds.
        is_open: Tells whether a candidate is new and within the limits.
        seed: Of the pool.
        pool: The candidates to choose from; empty to make a pool.
        reference: The worst (score, p50 in ms) of the hypervolume.
    """
    if len(observed) < LEAST_OBSERVED:
        return None
    random = np.random.default_rng(seed)
    belief = Belief(space, observed)
    if running:
        belief = Belief(space, (*observed, *_as_expected(belief, running)))
    known = {*running, *(each.candidate for each in observed)}
    pool = pool or pool_of(space, observed, random, known=known)
    if not pool:
        return None
    worth = belief.growth(pool, reference) / np.array([cost(each) for each in pool])
    best = np.argsort(-worth, kind="stable")[:MOST_CHECKED]
    return next((pool[place] for place in best.tolist() if is_open(pool[place])), None)


def pool_of(
    space: SearchSpace, observed: Sequence[Observation], random: np.random.Generator, *, known: set[Candidate]
) -> list[Candidate]:
    """Return up to `POOL` candidates: most near the front, the others drawn at random.

    They differ from the known ones in more than the calibration: that alone changes less than the noise of a score.
    """
    front = undominated(list(observed), lambda each: (each.score, each.p50_ms))
    pool = dict[Candidate, None]()
    for _ in range(round(MUTANTS * POOL)):
        candidate = front[int(random.integers(len(front)))].candidate
        for _ in range(int(random.integers(1, 3))):
            candidate = moved(candidate, space, random)
        pool[candidate] = None
    for _ in range(2 * POOL):
        if len(pool) >= POOL:
            break
        pool[drawn(space, random)] = None
    plain = {_without_calibration(candidate) for candidate in known}
    return [candidate for candidate in pool if _without_calibration(candidate) not in plain]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What candidates cost: in brief trainings, or in seconds."""

    trunks: dict[Candidate, set[Pruning]]
    """The known candidates without pruning and quantization, each with the prunings that were trained."""
    fixed: float
    """Cost of an export, a score and a timing."""
    training: Callable[[Candidate], float]
    """Returns the cost of a full training."""

    def __call__(self, candidate: Candidate) -> float:
        """Return what a candidate costs: less if its trunk, or even its branch, is stored."""
        trained = self.trunks.get(_trunk(candidate))
        if trained is not None and candidate.pruning in trained and not candidate.quantization.qat_steps:
            return self.fixed
        recipe = candidate.recipe
        share = 1.0 if trained is None or recipe.schedule != "wsd" else recipe.branch_fraction
        return self.fixed + share * self.training(candidate)


def in_trainings(known: Iterable[Candidate]) -> Costs:
    """Return costs in brief trainings, given the candidates whose weights are stored."""
    return Costs(trunks=_trunks(known), fixed=FIXED_COST, training=lambda _: 1.0)


def in_seconds(space: SearchSpace, records: Sequence[TrialRecord], running: Iterable[Candidate]) -> Costs | None:
    """Return costs in seconds, expected from those of the study's trials; None if no trial was trained.

    Args:
        space: The search space.
        records: The study's trials.
        running: Candidates whose weights will be stored soon.
    """
    trained = [each for each in records if each.training and each.charge > 0 and each.training.train_s > 0]
    if not trained:
        return None
    features = Features(space)
    full_s = [(each.training.train_s + each.training.retrain_s) / each.charge for each in trained if each.training]
    model = LogLinear(features.of([each.candidate for each in trained]), full_s)
    others = [sum(stage.seconds for stage in each.stages) for each in records if each.measured and not each.charge]
    fixed = statistics.median(others) if others else FIXED_COST * statistics.median(full_s)
    known = [*running, *(each.candidate for each in records if each.measured)]
    return Costs(
        trunks=_trunks(known), fixed=fixed, training=lambda candidate: float(model.predict(features.of([candidate]))[0])
    )


def _trunks(candidates: Iterable[Candidate]) -> dict[Candidate, set[Pruning]]:
    found: dict[Candidate, set[Pruning]] = {}
    for candidate in candidates:
        found.setdefault(_trunk(candidate), set()).add(candidate.pruning)
    return found


def _trunk(candidate: Candidate) -> Candidate:
    return Candidate(scaling=candidate.scaling, pruning=Pruning(), quantization=Quantization(), recipe=candidate.recipe)


def _without_calibration(candidate: Candidate) -> Candidate:
    calibration: dict[str, Any] = {name: getattr(_PLAIN, name) for name in _CALIBRATION}
    return replace(candidate, quantization=replace(candidate.quantization, **calibration))


def _as_expected(belief: Belief, candidates: Sequence[Candidate]) -> list[Observation]:
    expected = belief.expect(candidates)
    return [
        Observation(candidate=candidate, score=float(score), p50_ms=float(np.exp(log_ms)))
        for candidate, score, log_ms in zip(candidates, expected.score[0], expected.log_ms[0], strict=True)
    ]
