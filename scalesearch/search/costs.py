"""What candidates cost: in brief trainings, or in seconds, less what is stored or trained at this moment."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from scalesearch.analysis.belief import Features
from scalesearch.analysis.log_linear import LogLinear
from scalesearch.spaces.trunks import trunk_scaling
from scalesearch.values.candidate import Candidate, Pruning, Recipe, Scaling
from scalesearch.values.record import TrialRecord
from scalesearch.values.space import SearchSpace
from scalesearch.values.training_length import branch_steps, trunk_steps, warmup_steps

FIXED_COST: Final = 0.15
"""What an export, a score and a timing cost, in brief trainings. Medians on two cores: 1.5 s beside trainings of 9.5 s
in resnet_small (0.16), 2.0 s beside 25 and 33 s in mobilenet_small (0.08 and 0.06)."""
_LEAST_FIXED: Final = 0.02
Branch = tuple[Scaling, Pruning, int, int, float]
"""What a branch depends on besides its trunk: the cut to a smaller network, the pruning, the quantization-aware
updates, all its updates, the decay of the average of its weights."""
Trained = dict[Candidate, dict[int, set[Branch]]]
"""By trunk and by its length in updates, the branches that were trained."""


@dataclass(frozen=True, kw_only=True)
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
    running_s: Mapping[Candidate, float] = field(default_factory=dict)
    """For how many seconds each running candidate has run; empty where costs are not in seconds."""
    in_seconds: "Costs | None" = None
    """The same costs in seconds, which say how long a candidate would wait where costs are in trainings."""

    def __call__(self, candidate: Candidate) -> float:
        """Return what a candidate costs: less if its trunk, or even its branch, is stored.

        What a running candidate will have stored counts as stored, but its trunk must be waited for
        (`chain.one_trainer`), and the worker that waits does nothing else.
        """
        own = self._share(candidate, self._soon) * self.training(candidate)
        return self.fixed + self.wait(candidate) + own

    @cached_property
    def _soon(self) -> Trained:
        """What is stored once the running candidates are trained."""
        if not self.running_s:
            return self.trained
        soon = _copied(self.trained)
        for each in self.running_s:
            _note(each, self.space, soon)
        return soon

    @cached_property
    def _left_s(self) -> dict[tuple[Candidate, int, Branch] | Candidate, float]:
        """For how many seconds each trunk, and each branch with its trunk, is still trained by a running candidate."""
        left_s: dict[tuple[Candidate, int, Branch] | Candidate, float] = {}
        for each, ran_s in self.running_s.items():
            trunk, recipe = _trunk(each, self.space), each.recipe
            of_trunk, length = self.trained.get(trunk, {}), trunk_steps(recipe)
            reached = max((steps for steps in of_trunk if steps <= length), default=0)
            # The schedule `cosine` has no trunk: its dense network is waited for.
            updates = length - reached if length else 0 if of_trunk else recipe.steps
            own = recipe.steps - length if length else recipe.retrain_steps if each.pruning.any else 0
            s_per_update = self.training(each) / (self.full_updates or recipe.steps)
            for what, count in ((trunk, updates), ((trunk, length, _branch(each)), updates + own)):
                left_s[what] = max(left_s.get(what, 0.0), s_per_update * count - ran_s)
        return left_s

    def wait(self, candidate: Candidate) -> float:
        """Return how long the candidate would wait for a running one's weights: in seconds, or in trainings of its own.

        It waits for the trunk that it needs, and for the whole network if it is the same in another precision.
        """
        if self.in_seconds is not None:
            wait_s = self.in_seconds.wait(candidate)
            return wait_s and wait_s / self.in_seconds.training(candidate)
        if not self.running_s:
            return 0.0
        trunk, length = _trunk(candidate, self.space), trunk_steps(candidate.recipe)
        stored = length in self.trained.get(trunk, {})  # a stored trunk is used while another worker lengthens it
        return self._left_s.get((trunk, length, _branch(candidate)), 0.0 if stored else self._left_s.get(trunk, 0.0))

    def of_all(self, candidates: Iterable[Candidate]) -> float:
        """Return what the run spends on these candidates, one after the other."""
        trained = _copied(self.trained)
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
            return candidate.quantization.aware_steps / full
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
    space: SearchSpace, records: Sequence[TrialRecord], running_s: Mapping[Candidate, float], *, full_updates: int = 0
) -> Costs | None:
    """Return costs in seconds, expected from those of the study's trials; None if no trial was trained.

    Args:
        space: The search space.
        records: The study's trials.
        running_s: For how many seconds each candidate has run whose weights will be stored soon.
        full_updates: Updates of a full training, where candidates are trained by unlike lengths; else 0.
    """
    own = [each for each in records if each.measured and each.same_as is None]
    trained = [each for each in own if each.training and each.training.train_s > 0 and each.charged]
    plain = [each for each in trained if not each.candidate.quantization.aware_steps]
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
    return Costs(
        space=space,
        trained=trained_from((each.candidate for each in own), space),
        fixed=fixed_s,
        training=lambda candidate: float(model.predict(features.of([candidate]))[0]),
        full_updates=full_updates,
        running_s=running_s,
    )


def trained_from(candidates: Iterable[Candidate], space: SearchSpace) -> Trained:
    """Return the trunks of the candidates, with the branches that were trained from each of its lengths."""
    found: Trained = {}
    for candidate in candidates:
        _note(candidate, space, found)
    return found


def _copied(trained: Trained) -> Trained:
    return {trunk: {steps: set(branches) for steps, branches in of.items()} for trunk, of in trained.items()}


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
    recipe, aware = candidate.recipe, candidate.quantization.aware_steps
    return candidate.scaling, candidate.pruning, aware, branch_steps(recipe), recipe.ema_decay
