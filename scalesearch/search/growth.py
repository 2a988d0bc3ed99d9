"""Propose the candidate that is expected to enlarge the front most for its cost, by a model of the study's own trials.

Like siblings and branches, the proposals are queued in Optuna's study, so that they are kept and shown like any other.
"""

import statistics
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np

from scalesearch.analysis.baselines import LEAST_OBSERVED
from scalesearch.analysis.belief import (
    Belief,
    Features,
    Observation,
    Timed,
    at_length,
    within_limits,
    without_calibration,
)
from scalesearch.analysis.front import Point, undominated
from scalesearch.analysis.log_linear import LogLinear
from scalesearch.spaces.moves import drawn, moved
from scalesearch.spaces.trunks import trunk_scaling
from scalesearch.values.candidate import Candidate, Pruning, Recipe, Scaling
from scalesearch.values.record import TrialRecord
from scalesearch.values.space import SearchSpace
from scalesearch.values.training_length import branch_steps, trunk_steps, warmup_steps

POOL: Final = 256
MUTANTS: Final = 0.7
"""The part of the pool that consists of members of the front, moved once or twice."""
FIXED_COST: Final = 0.15
"""What an export, a score and a timing cost, in brief trainings. Medians on two cores: 1.5 s beside trainings of 9.5 s
in resnet_small (0.16), 2.0 s beside 25 and 33 s in mobilenet_small (0.08 and 0.06)."""
_LEAST_FIXED: Final = 0.02
MOST_CHECKED: Final = 64
"""So many of the best of the pool are planned, until one of them is new and within the limits."""
Branch = tuple[Scaling, Pruning, int, int, float]
"""What a branch depends on besides its trunk: the cut to a smaller network, the pruning, the quantization-aware
updates, all its updates, the decay of the average of its weights."""
Trained = dict[Candidate, dict[int, set[Branch]]]
"""By trunk and by its length in updates, the branches that were trained."""


def propose(
    space: SearchSpace,
    observed: Sequence[Observation],
    *,
    running: Sequence[Candidate],
    cost: "Costs",
    is_open: Callable[[Candidate], bool],
    seed: int,
    pool: Sequence[Candidate] = (),
    reference: Point | None = None,
    lengths: Sequence[int] = (),
    room: "Room | None" = None,
    timed: Sequence[Timed] = (),
) -> Candidate | None:
    """Return the candidate to try next; None if nothing can be proposed.

    With `lengths`, the candidate may be a known one whose training goes on. A member of the believed front is brought
    to full length first if too little was spent on that, or if the run has no room for both; with no member left and
    no room, it is another candidate in full length. Nothing is proposed that the run has no room for: then it is the
    best of what is left that it has room for.

    Args:
        space: The search space.
        observed: What was measured, oldest first.
        running: Candidates whose results are not known yet. The model takes them for observed, with what it expects.
        cost: What candidates cost, in trainings or seconds.
        is_open: Tells whether a candidate is new and within the limits.
        seed: Of the pool.
        pool: The candidates to choose from; empty to make a pool.
        reference: The worst (score, p50 in ms) of the hypervolume; None: the model's.
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
    worst = reference or belief.reference(pool)

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
    if fits and not room.wants_members:
        return found
    if member := best([each for each in members if room.affords(each) and room.in_time(each)]):
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
    believed = belief.believed()
    return [each for each in undominated(believed, lambda each: believed[each]) if each not in known]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What candidates cost: in brief trainings, or in seconds."""

    space: SearchSpace
    trained: Trained
    fixed: float
    """Cost of an export, a score and a timing."""
    training: Callable[[Candidate], float]
    """Returns the cost of a full training."""
    full_updates: int = 0
    """Updates of a full training, where candidates are trained by unlike lengths; else 0."""
    fixed_counts: bool = True
    """Whether `of_all` contains the fixed cost."""

    def __call__(self, candidate: Candidate) -> float:
        """Return what a candidate costs: less if its trunk, or even its branch, is stored."""
        return self.fixed + self._share(candidate, self.trained) * self.training(candidate)

    def of_all(self, candidates: Iterable[Candidate]) -> float:
        """Return what the run spends on these candidates, one after the other."""
        trained = {trunk: {steps: set(each) for steps, each in of.items()} for trunk, of in self.trained.items()}
        spent = 0.0
        for each in candidates:
            spent += self._share(each, trained) * self.training(each) + self.fixed_counts * self.fixed
            _note(each, self.space, trained)
        return spent

    def _share(self, candidate: Candidate, stored: Trained) -> float:
        """Return the part of a full training that a candidate still needs."""
        recipe, of_trunk = candidate.recipe, stored.get(_trunk(candidate, self.space), {})
        full, length = self.full_updates or recipe.steps, trunk_steps(recipe)
        if _branch(candidate) in of_trunk.get(length, ()):
            return candidate.quantization.qat_steps / full
        if not length and of_trunk and candidate.pruning.any:  # cosine: the dense network is stored
            return recipe.retrain_steps / (recipe.steps + recipe.retrain_steps)
        reached = max((steps for steps in of_trunk if steps <= length), default=0)
        return (recipe.steps - reached) / full


def in_trainings(space: SearchSpace, known: Iterable[Candidate], *, lengths: Sequence[int] = ()) -> Costs:
    """Return costs in full trainings.

    Args:
        space: The search space.
        known: Candidates whose weights are stored.
        lengths: The lengths of a training in updates, ascending; empty where all trainings are alike.
    """
    return Costs(
        space=space,
        trained=trained_from(known, space),
        fixed=FIXED_COST * statistics.median(lengths) / lengths[-1] if lengths else FIXED_COST,
        training=lambda _: 1.0,
        full_updates=lengths[-1] if lengths else 0,
        fixed_counts=False,
    )


def in_seconds(
    space: SearchSpace, records: Sequence[TrialRecord], running: Iterable[Candidate], *, full_updates: int = 0
) -> Costs | None:
    """Return costs in seconds, expected from those of the study's trials; None if no trial was trained.

    Args:
        space: The search space.
        records: The study's trials.
        running: Candidates whose weights will be stored soon.
        full_updates: Updates of a full training, where candidates are trained by unlike lengths; else 0.
    """
    own = [each for each in records if each.measured and each.same_as is None]
    trained = [each for each in own if each.training and each.training.train_s > 0 and each.charged]
    plain = [each for each in trained if not each.candidate.quantization.qat_steps]
    if not plain:
        return None
    features = Features(space)
    # The seconds of parts that were stored are among them.
    full_s = [
        (each.training.train_s + each.training.retrain_s) * (full_updates or each.training.steps) / each.training.steps
        for each in plain
        if each.training
    ]
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
        full_updates=full_updates,
    )


def trained_from(candidates: Iterable[Candidate], space: SearchSpace) -> Trained:
    """Return the trunks of the candidates, with the branches that were trained from each of its lengths."""
    found: Trained = {}
    for candidate in candidates:
        _note(candidate, space, found)
    return found


def _note(candidate: Candidate, space: SearchSpace, trained: Trained) -> None:
    """Add the weights that are stored once the candidate is trained."""
    of_trunk = trained.setdefault(_trunk(candidate, space), {})
    of_trunk.setdefault(trunk_steps(candidate.recipe), set()).add(_branch(candidate))


def _trunk(candidate: Candidate, space: SearchSpace) -> Candidate:
    """Return the candidate whose trunk it shares: uncut, not quantized, and as large as the network it is cut from.

    With the schedule `wsd` it is the same for every length with the same warm-up, whatever its branch is like. This is
    what `training.schedule.trunk_recipe` says, which is not imported, since the search does without torch.
    """
    plain = Scaling()
    largest = replace(
        trunk_scaling(space, candidate.scaling),
        width_by=plain.width_by,
        depth_by=plain.depth_by,
        kernel_by=plain.kernel_by,
    )
    recipe = candidate.recipe
    if recipe.schedule == "wsd":
        recipe = replace(
            recipe, steps=Recipe().steps, warmup_steps=warmup_steps(recipe), branch_fraction=0.0, ema_decay=0.0
        )
    return Candidate(scaling=largest, recipe=recipe)


def _branch(candidate: Candidate) -> Branch:
    recipe, aware = candidate.recipe, candidate.quantization.qat_steps
    return candidate.scaling, candidate.pruning, aware, branch_steps(recipe), recipe.ema_decay
