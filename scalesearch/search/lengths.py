"""Candidates that are trained by unlike lengths: how such a study begins, and whether a run has room to finish more."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from scalesearch.search.hopeless import Hopeless
from scalesearch.search.ledger import Ledger
from scalesearch.search.time_limit import TimeLimit
from scalesearch.spaces.asking import index_name
from scalesearch.spaces.axes import OptunaChoice
from scalesearch.spaces.suggest import cheapest, trial_parameters
from scalesearch.values.candidate import Candidate
from scalesearch.values.space import STEPS, SearchSpace

if TYPE_CHECKING:
    from scalesearch.search.costs import Costs  # loads scikit-learn, which no other sampler needs

MEMBERS_SHARE: Final = 0.25
"""At least this part of the updates goes into trainings of full length: a run that is stopped early has a front, too.

On the table of benchmarks/replay (of the seconds, there) more stood at full length after 2 minutes by this, and as much
at the end (docs/measurements.md, "Short trainings, long ones").
"""
_SLACK: Final = 1e-6
"""What is left of the budget is rounded to so much, in full trainings."""


class Lengths:
    """The lengths of the trainings of one study; there are none where all are trained alike.

    Args:
        space: The search space.
        ledger: The trials of the study.
        full_updates: Updates of a member of the front; 0 where all candidates are trained alike.
        workers: Number of workers.
        time: The time limit of the run.
    """

    def __init__(
        self,
        space: SearchSpace,
        ledger: Ledger,
        *,
        full_updates: int,
        workers: int,
        time: TimeLimit,
    ) -> None:
        self._space, self._ledger = space, ledger
        self._workers, self._time = workers, time
        self._begun = set[Candidate]()
        self.all: tuple[int, ...] = space.lengths if full_updates else ()
        """In updates, ascending."""

    @property
    def full_updates(self) -> int:
        """The greatest length; 0 if there are none."""
        return self.all[-1] if self.all else 0

    @property
    def given(self) -> int:
        """Number of trials that a study begins with besides its first: the cheapest candidate in its other lengths."""
        return max(0, len(self.all) - 1)

    def beginning(self) -> Candidate | None:
        """Return the next candidate that a study begins with, after its first; None if there is none at this moment.

        The cheapest candidate is trained in every length, the greatest soon, so that the front has a member. So the
        model sees what a longer training brings. One of them waits until the one before has ended, whose trunk it
        continues: side by side, workers would train parts of that trunk twice. There is none if its network fails.
        """
        if not self.all:
            return None
        first, records = cheapest(self._space), self._ledger.records.values()
        wanted = [
            replace(first, recipe=replace(first.recipe, steps=steps)) for steps in (self.all[0], *self.all[:0:-1])
        ]
        begun = self._begun | {record.candidate for record in records}
        left = [each for each in wanted[1:] if each not in begun]
        if not left or any(asked.plan.candidate in wanted for asked in self._ledger.running.values()):
            return None
        return None if left[0] in Hopeless(records) else left[0]

    def take_beginning(self, candidate: Candidate) -> dict[str, OptunaChoice]:
        """Return the parameters of a beginning, which is not asked for again in this run."""
        self._begun.add(candidate)
        return trial_parameters(candidate, self._space)

    @property
    def shortest(self) -> dict[str, OptunaChoice]:
        """The parameter with which a trial is as short as can be; empty if there are no lengths."""
        asked = trial_parameters(cheapest(self._space), self._space) if self.all else {}
        return {name: asked[name] for name in (STEPS, index_name(STEPS)) if name in asked}

    def left(self, parameters: Mapping[str, OptunaChoice]) -> dict[str, OptunaChoice]:
        """Return the parameter for the length of a trial that was left behind, if it has none for it as asked now.

        It may have been asked before the study was made longer. If there was one length, that was the shortest.
        """
        known, position = parameters.get(STEPS), parameters.get(index_name(STEPS))
        if index_name(STEPS) in self.shortest and known in self.all:
            return {index_name(STEPS): self.all.index(int(known))}
        if STEPS in self.shortest and position is not None:
            return {STEPS: self.all[int(position)]}
        return self.shortest

    @property
    def too_little(self) -> bool:
        """Whether the rest of the budget does not even suffice for the shortest training."""
        return self._ledger.left + _SLACK < (self.all[0] / self.all[-1] if self.all else 1.0)

    def trials(self, budget: float) -> float:
        """Return how many of the shortest trainings the budget of full trainings has room for."""
        return budget * self.all[-1] / self.all[0] if self.all else budget

    @property
    def half_spent(self) -> bool:
        """Whether half of the budget or of the time is used up, so that the rest is for the front."""
        return bool(self.all) and (self._ledger.left < self._ledger.budget / 2 or self._time.half_over)

    def room(self, trainings: "Costs", seconds: "Costs | None") -> "RunRoom":
        """Return what the run has room for at this moment.

        Args:
            trainings: What candidates cost in full trainings, once the running ones are done.
            seconds: What they cost in seconds, of what is done by now; None where that is not known, or time is not
                limited.
        """
        asked = self._ledger.running.values()
        running = [each.plan.candidate for each in asked]
        left_s = self._time.left_s if seconds else math.inf
        spent = [(record.short, record.charge) for record in self._ledger.records.values()]
        spent += [(each.plan.short, each.most_charge) for each in asked]
        on_members = sum(charge for short, charge in spent if not short)
        wants_members = on_members < MEMBERS_SHARE * sum(charge for _, charge in spent)
        left = self._ledger.left
        return RunRoom(left, left_s, self._workers, trainings, seconds, running, wants_members=wants_members)


class RunRoom:
    """What a run has room for; made by `Lengths.room`."""

    def __init__(
        self,
        left: float,
        left_s: float,
        workers: int,
        trainings: "Costs",
        seconds: "Costs | None",
        running: Sequence[Candidate],
        *,
        wants_members: bool = False,
    ) -> None:
        self._left, self._left_s, self._workers = left, left_s, workers
        self._trainings, self._seconds, self._running = trainings, seconds, running
        self.wants_members = wants_members
        """Whether too little was spent on trainings of full length so far."""
        self.too_late = False
        """Whether a candidate would not have ended in time."""
        self.too_little = False
        """Whether the budget did not suffice for a candidate."""

    def fits(self, candidates: Sequence[Candidate]) -> bool:
        """Tell whether budget and time suffice for these candidates, one after the other."""
        if self._trainings.of_all(candidates) > self._left + _SLACK:
            return False
        whole_s = self._seconds.of_all([*self._running, *candidates]) if self._seconds else 0.0
        return whole_s <= self._workers * self._left_s

    def affords(self, candidate: Candidate) -> bool:
        """Tell whether the budget suffices for the candidate."""
        dear = self._trainings.of_all([candidate]) > self._left + _SLACK
        self.too_little = self.too_little or dear
        return not dear

    def uses_up(self, candidate: Candidate) -> bool:
        """Tell the same; with less left than a full training, False for one that costs nothing (see `growth.Room`)."""
        if self._left < 1 and self._trainings.of_all([candidate]) <= _SLACK:
            self.too_little = True
            return False
        return self.affords(candidate)

    def in_time(self, candidate: Candidate) -> bool:
        """Tell whether the candidate would end before the time is up."""
        late = self._seconds is not None and self._seconds(candidate) > self._left_s
        self.too_late = self.too_late or late
        return not late
