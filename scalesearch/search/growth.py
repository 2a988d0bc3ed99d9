"""Propose the candidate that is expected to enlarge the front most for its cost, by a model of the study's own trials.

Like siblings and branches, the proposals are queued in Optuna's study, so that they are kept and shown like any other.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final, Protocol

import numpy as np

from scalesearch.analysis.baselines import LEAST_OBSERVED
from scalesearch.analysis.belief import (
    Belief,
    Observation,
    Timed,
    at_length,
    within_limits,
    without_calibration,
)
from scalesearch.analysis.front import undominated
from scalesearch.search.costs import Costs
from scalesearch.spaces.moves import drawn, moved
from scalesearch.values.candidate import Candidate
from scalesearch.values.space import SearchSpace

POOL: Final = 256
MUTANTS: Final = 0.7
"""The part of the pool that consists of members of the front, moved once or twice."""
MOST_CHECKED: Final = 64
"""So many of the best of the pool are planned, until one of them is new and within the limits."""


def propose(
    space: SearchSpace,
    observed: Sequence[Observation],
    *,
    running: Sequence[Candidate],
    cost: Costs,
    is_open: Callable[[Candidate], bool],
    seed: int,
    pool: Sequence[Candidate] = (),
    lengths: Sequence[int] = (),
    room: "Room | None" = None,
    timed: Sequence[Timed] = (),
) -> Candidate | None:
    """Return the candidate to try next; None if nothing can be proposed.

    With `lengths`, the candidate may be a known one whose training goes on. A member of the believed front is brought
    to full length first if too little was spent on that, or if the run has no room for both; before all others one that
    need not wait for a trunk in training. With no member left and no room, it is another candidate in full length.
    Nothing is proposed that the run has no room for: then it is the best of what is left that it has room for.

    Args:
        space: The search space.
        observed: What was measured, oldest first.
        running: Candidates whose results are not known yet. The model takes them for observed, with what it expects.
        cost: What candidates cost, in trainings or seconds.
        is_open: Tells whether a candidate is new and within the limits.
        seed: Of the pool.
        pool: The candidates to choose from; empty to make a pool.
        lengths: The lengths of a training in updates, ascending; empty where all trainings are alike.
        room: What the run has room for; None for a run without end.
        timed: Candidates that were rejected for their latency.
    """
    if len(observed) < LEAST_OBSERVED:
        return None
    random = np.random.default_rng(seed)
    belief = Belief(space, observed, full_updates=lengths[-1] if lengths else 0, timed=timed).supposing(running)
    known = {*running, *(each.candidate for each in observed)}
    if not pool and lengths:
        pool = within_limits(space, observed, pool_of_lengths(space, belief, random, lengths, known=known))
    elif not pool:
        pool = within_limits(space, observed, pool_of(space, observed, random, known=known))
    worst = belief.reference(pool)

    def best(pool: Sequence[Candidate]) -> Candidate | None:
        """Return the open candidate of the pool that promises most for its cost."""
        if not pool:
            return None
        worth = belief.promise(pool, worst) / np.array([cost(each) for each in pool])
        order = np.argsort(-worth, kind="stable")[:MOST_CHECKED]
        return next((pool[place] for place in order.tolist() if is_open(pool[place])), None)

    if not lengths:
        found = best(pool)
        if room is None or found is None or (room.uses_up(found) and room.in_time(found)):
            return found
        return best([each for each in pool if room.uses_up(each) and room.in_time(each)])
    found, members = best(pool), [each for each in unfinished(belief, known) if is_open(each)]
    if room is None:
        return found
    fits = found is not None and room.fits((found, at_length(found, lengths[-1]), *members))
    fits = fits and found is not None and room.uses_up(found) and room.in_time(found)
    # A worker that waits for a trunk does nothing else: members whose trunk another one trains come last.
    ready = [each for each in members if not cost.wait(each)]
    if fits and not (room.wants_members and ready):
        return found
    for wanted in (ready, members):
        if member := best([each for each in wanted if room.affords(each) and room.in_time(each)]):
            return member
        if fits:
            return found
    full = (each for each in pool if each.recipe.steps == lengths[-1])
    return best([each for each in full if room.uses_up(each) and room.in_time(each)])


class Room(Protocol):
    """What a run has room for."""

    @property
    def wants_members(self) -> bool:
        """Whether too little was spent on trainings of full length so far."""

    def fits(self, candidates: Sequence[Candidate]) -> bool:
        """Tell whether budget and time suffice for these candidates, one after the other."""

    def affords(self, candidate: Candidate) -> bool:
        """Tell whether the budget suffices for the candidate."""

    def uses_up(self, candidate: Candidate) -> bool:
        """Tell the same; with less left than a full training, False for one that costs nothing.

        Otherwise a run would go on with what costs nothing once its budget suffices for nothing else.
        """

    def in_time(self, candidate: Candidate) -> bool:
        """Tell whether the candidate would end before the time is up."""


def unfinished(belief: Belief, known: Collection[Candidate]) -> list[Candidate]:
    """Return, in full length, the members of the believed front that were trained only in part; fastest first."""
    front = undominated(belief.believed().items(), lambda each: each[1])
    return [candidate for candidate, _ in front if candidate not in known]


def pool_of_lengths(
    space: SearchSpace,
    belief: Belief,
    random: np.random.Generator,
    lengths: Sequence[int],
    *,
    known: Collection[Candidate],
) -> list[Candidate]:
    """Return the known candidates and those of `pool_of`, in every length that is above the one they are known in."""
    believed = [Observation(candidate=each, score=at[0], p50_ms=at[1]) for each, at in belief.believed().items()]
    near = pool_of(space, believed or belief.observations, random, known=set())
    reached: dict[Candidate, int] = {}
    for each in known:
        full = without_calibration(at_length(each, lengths[-1]))
        reached[full] = max(reached.get(full, 0), each.recipe.steps)
    pool = dict.fromkeys(at_length(each, lengths[-1]) for each in (*known, *near))
    return [
        replace(each, recipe=replace(each.recipe, steps=steps))
        for each in pool
        for steps in lengths
        if steps > reached.get(without_calibration(each), 0)
    ]


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
