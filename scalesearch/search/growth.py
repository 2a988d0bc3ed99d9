"""Propose the candidate that is expected to enlarge the front most for its cost, by a model of the study's own trials.

Like siblings and branches, the proposals are queued in Optuna's study, so that they are kept and shown like any other.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from scalesearch.analysis.belief import Belief, Features, Observation, within_macs, without_calibration
from scalesearch.analysis.front import REFERENCE, Point, undominated
from scalesearch.analysis.log_linear import LogLinear
from scalesearch.spaces.moves import drawn, moved
from scalesearch.spaces.trunks import trunk_scaling
from scalesearch.values.candidate import Candidate, Pruning, Scaling
from scalesearch.values.record import TrialRecord
from scalesearch.values.space import SearchSpace

POOL: Final = 256
MUTANTS: Final = 0.7
"""The part of the pool that consists of members of the front, moved once or twice."""
FIXED_COST: Final = 0.15
"""What an export, a score and a timing cost, in brief trainings. Medians on two cores: 1.5 s beside trainings of 9.5 s
in resnet_small (0.16), 2.0 s beside 25 and 33 s in mobilenet_small (0.08 and 0.06)."""
_LEAST_FIXED: Final = 0.02
MOST_CHECKED: Final = 64
"""So many of the best of the pool are planned, until one of them is new and within the limits."""
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
    belief = Belief(space, observed).supposing(running)
    known = {*running, *(each.candidate for each in observed)}
    pool = pool or within_macs(space, observed, pool_of(space, observed, random, known=known))
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
    feasible = [each for each in observed if each.feasible]
    front = undominated(feasible or list(observed), lambda each: (each.score, each.p50_ms))
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
    plain = {without_calibration(candidate) for candidate in known}
    return [candidate for candidate in pool if without_calibration(candidate) not in plain]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What candidates cost: in brief trainings, or in seconds."""

    space: SearchSpace
    trained: dict[Candidate, set[tuple[Pruning, int]]]
    """By trunk, what was trained from it: the pruning, and the quantization-aware updates that follow it."""
    fixed: float
    """Cost of an export, a score and a timing."""
    training: Callable[[Candidate], float]
    """Returns the cost of a full training."""

    def __call__(self, candidate: Candidate) -> float:
        """Return what a candidate costs: less if its trunk, or even its branch, is stored."""
        trained = self.trained.get(_trunk(candidate, self.space))
        if trained is not None and _branch(candidate) in trained and not candidate.quantization.qat_steps:
            return self.fixed
        recipe = candidate.recipe
        share = 1.0 if trained is None or recipe.schedule != "wsd" else recipe.branch_fraction
        return self.fixed + share * self.training(candidate)


def in_trainings(space: SearchSpace, known: Iterable[Candidate]) -> Costs:
    """Return costs in brief trainings, given the candidates whose weights are stored."""
    return Costs(space=space, trained=trained_from(known, space), fixed=FIXED_COST, training=lambda _: 1.0)


def in_seconds(space: SearchSpace, records: Sequence[TrialRecord], running: Iterable[Candidate]) -> Costs | None:
    """Return costs in seconds, expected from those of the study's trials; None if no trial was trained.

    Args:
        space: The search space.
        records: The study's trials.
        running: Candidates whose weights will be stored soon.
    """
    own = [each for each in records if each.measured and each.same_as is None]
    trained = [each for each in own if each.training and each.training.train_s > 0 and each.charged]
    plain = [each for each in trained if not each.candidate.quantization.qat_steps]
    if not plain:
        return None
    features = Features(space)
    # The seconds of parts that were stored are among them.
    full_s = [each.training.train_s + each.training.retrain_s for each in plain if each.training]
    model = LogLinear(features.of([each.candidate for each in plain]), full_s)
    others_s = [sum(stage.seconds for stage in each.stages) for each in own if not each.charged and each.stages]
    least_s = _LEAST_FIXED * statistics.median(full_s)
    fixed_s = max(least_s, statistics.median(others_s) if others_s else FIXED_COST * statistics.median(full_s))
    known = [*running, *(each.candidate for each in own)]
    return Costs(
        space=space,
        trained=trained_from(known, space),
        fixed=fixed_s,
        training=lambda candidate: float(model.predict(features.of([candidate]))[0]),
    )


def trained_from(candidates: Iterable[Candidate], space: SearchSpace) -> dict[Candidate, set[tuple[Pruning, int]]]:
    """Return the trunks of the candidates, each with the branches that were trained from it."""
    found: dict[Candidate, set[tuple[Pruning, int]]] = {}
    for candidate in candidates:
        found.setdefault(_trunk(candidate, space), set()).add(_branch(candidate))
    return found


def _trunk(candidate: Candidate, space: SearchSpace) -> Candidate:
    """Return the candidate whose trunk it shares: uncut, not quantized, and as large as the network it is cut from."""
    plain = Scaling()
    largest = replace(
        trunk_scaling(space, candidate.scaling),
        width_by=plain.width_by,
        depth_by=plain.depth_by,
        kernel_by=plain.kernel_by,
    )
    return Candidate(scaling=largest, recipe=candidate.recipe)


def _branch(candidate: Candidate) -> tuple[Pruning, int]:
    return candidate.pruning, candidate.quantization.qat_steps
