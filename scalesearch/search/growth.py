"""Propose the candidate that is expected to enlarge the front most for its cost, by a model of the study's own trials.

Like siblings and branches, the proposals are queued in Optuna's study, so that they are kept and shown like any other.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from scalesearch.analysis.belief import Belief, Observation
from scalesearch.analysis.front import undominated
from scalesearch.spaces.moves import drawn, moved
from scalesearch.values.candidate import Candidate, Pruning, Quantization
from scalesearch.values.space import SearchSpace

POOL: Final = 256
MUTANTS: Final = 0.7
"""The part of the pool that consists of members of the front, moved by one or two steps."""
FIXED_COST: Final = 0.15
"""What an export, a score and a timing cost, in brief trainings; measured on two cores (docs/measurements.md)."""
MOST_CHECKED: Final = 24
"""So many of the best of the pool are planned, until one of them is new and within the limits."""
LEAST_OBSERVED: Final = 4
"""With fewer measured candidates, nothing is proposed."""


def propose(
    space: SearchSpace,
    observed: Sequence[Observation],
    *,
    running: Sequence[Candidate],
    is_open: Callable[[Candidate], bool],
    seed: int,
    pool: Sequence[Candidate] = (),
) -> Candidate | None:
    """Return the candidate to try next; None if nothing can be proposed.

    Args:
        space: The search space.
        observed: What was measured, oldest first.
        running: Candidates whose results are not known yet. The model takes them for observed, with what it expects.
        is_open: Tells whether a candidate is new and within the limits.
        seed: Of the pool.
        pool: The candidates to choose from; empty to make a pool.
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
    shared = _trunks([*running, *(each.candidate for each in observed)])
    worth = belief.growth(pool) / np.array([cost(each, shared) for each in pool])
    best = np.argsort(-worth, kind="stable")[:MOST_CHECKED]
    return next((pool[place] for place in best.tolist() if is_open(pool[place])), None)


def pool_of(
    space: SearchSpace, observed: Sequence[Observation], random: np.random.Generator, *, known: set[Candidate]
) -> list[Candidate]:
    """Return up to `POOL` candidates that are not known: most near the front, the others drawn at random."""
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
    return [candidate for candidate in pool if candidate not in known]


def cost(candidate: Candidate, trunks: dict[Candidate, set[Pruning]]) -> float:
    """Return what a candidate costs, in brief trainings: less if its trunk, or even its branch, is stored.

    Args:
        candidate: The candidate.
        trunks: The known candidates without pruning and quantization, each with the prunings that were trained.
    """
    trained = trunks.get(_trunk(candidate))
    if trained is None:
        return FIXED_COST + 1.0
    if candidate.pruning in trained and not candidate.quantization.qat_steps:
        return FIXED_COST
    return FIXED_COST + (candidate.recipe.branch_fraction if candidate.recipe.schedule == "wsd" else 1.0)


def _trunks(candidates: Sequence[Candidate]) -> dict[Candidate, set[Pruning]]:
    found: dict[Candidate, set[Pruning]] = {}
    for candidate in candidates:
        found.setdefault(_trunk(candidate), set()).add(candidate.pruning)
    return found


def _trunk(candidate: Candidate) -> Candidate:
    return Candidate(scaling=candidate.scaling, pruning=Pruning(), quantization=Quantization(), recipe=candidate.recipe)


def _as_expected(belief: Belief, candidates: Sequence[Candidate]) -> list[Observation]:
    expected = belief.expect(candidates)
    return [
        Observation(candidate=candidate, score=float(score), p50_ms=float(np.exp(log_ms)))
        for candidate, score, log_ms in zip(candidates, expected.score[0], expected.log_ms[0], strict=True)
    ]
