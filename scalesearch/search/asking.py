"""Asks Optuna for trials: what a killed run left behind, then siblings and branches, then what the sampler proposes."""

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import optuna

from scalesearch.analysis.baselines import DRAWS_ITS_START, LEAST_OBSERVED, by_chance, starts_uncut
from scalesearch.errors import CandidateRejected, StageFailed
from scalesearch.search.branches import Branches
from scalesearch.search.hopeless import Hopeless
from scalesearch.search.ledger import Ledger
from scalesearch.search.lengths import Lengths
from scalesearch.search.precisions import Precisions
from scalesearch.search.samplers import LEARNS_FROM_REJECTED, make_sampler, seed_of
from scalesearch.search.siblings import SIBLING_OF
from scalesearch.search.storage import OpenStudy
from scalesearch.spaces.suggest import cheapest, suggest, trial_parameters, uncut_parameters
from scalesearch.values.candidate import Candidate
from scalesearch.values.plan import Plan
from scalesearch.values.settings import SamplerName, sampler_after
from scalesearch.values.space import SearchSpace

BY_CHANCE_AFTER = 4
"""After this many candidates in a row that teach the sampler nothing, candidates are drawn at random until one is new.
A sampler that is told the same values for the same candidate again would only become surer of that candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the sampler is made, anew for each trial."""

    sampler: SamplerName
    seed: int
    workers: int
    by_time: bool = False
    """Whether the run is limited by its time, so that `growth` counts a candidate's cost in seconds."""
    gives_way: bool = False
    """Whether `QUICK_SAMPLER` takes the place of `sampler` beyond `MANY_TRIALS`, unless it chooses among lengths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A trial that Optuna gave, with its candidate."""

    trial: optuna.Trial
    candidate: Candidate
    sibling_of: int | None
    pays: bool
    """Whether the budget counts what it trains: always, except for a sibling, which has the weights of its network."""
    continued: bool
    """Whether an earlier run that was killed had begun the trial."""


class Asker:
    """The queue of trials of one study, and the only place that asks Optuna for one."""

    def __init__(
        self,
        opened: OpenStudy,
        space: SearchSpace,
        sampling: Sampling,
        ledger: Ledger,
        *,
        precisions: Precisions,
        branches: Branches,
        lengths: Lengths,
        plan: Callable[[Candidate], Plan],
    ) -> None:
        """Begin with an empty queue; `begin` fills it."""
        self._plan, self._lengths = plan, lengths
        self._opened, self._space, self._sampling = opened, space, sampling
        self._ledger, self._precisions, self._branches = ledger, precisions, branches
        self._left_behind: deque[int] = deque()  # still RUNNING after a run was killed
        self._postponed: list[int] = []  # left-behind trials for which the budget has no room
        self._continued: frozenset[int] = frozenset()  # all trials left behind, asked again or not
        self._next_number = 0
        self.short_of: Literal["", "time", "budget"] = ""
        """What was lacking when `ask` last returned None."""

    def begin(self, left_behind: Iterable[int]) -> None:
        """Queue the trials that a killed run left behind, and in a new study the cheapest candidate."""
        self._left_behind.extend(left_behind)
        self._continued = frozenset(self._left_behind)
        self._next_number = len(self._opened.study.get_trials(deepcopy=False))
        if self._next_number == 0:  # gives a first result within seconds, and the fast end of the front
            self._opened.study.enqueue_trial(trial_parameters(cheapest(self._space), self._space))

    @property
    def sampler(self) -> SamplerName:
        """Who proposes the next candidate."""
        gives_way = self._sampling.gives_way and not self._lengths.all
        return sampler_after(len(self._ledger.records), self._sampling.sampler, gives_way=gives_way)

    @property
    def left_behind(self) -> int:
        """Number of trials that a killed run left behind and that are still to be asked for again."""
        return len(self._left_behind)

    def was_begun_before(self, number: int) -> bool:
        """Tell whether a killed run had begun this trial."""
        return number in self._continued

    def may_ask(self) -> bool:
        """Tell whether there is one more candidate to ask for; except for siblings, the budget must have room."""
        if self._precisions.wanted:
            return True
        if self._left_behind:  # even with no budget left: siblings and repeats are not charged
            return True
        if not self._ledger.has_room:
            return False
        if self._postponed:
            self._left_behind.extend(self._postponed)
            self._postponed.clear()
            return True
        return self._takes_branches or not self._ledger.used_up

    @property
    def chooses_by_room(self) -> bool:
        """Whether the next candidate is chosen by how long it takes, or costs no training."""
        if self._left_behind:  # it comes first, and may have to be trained
            return False
        if self._precisions.wanted:
            return True
        if self.sampler != "growth" or self._lengths.beginning():
            return False
        # Seconds are expected once a training without simulated rounding was measured.
        own = [record for record in self._ledger.records.values() if record.state == "complete"]
        known = len(own) >= LEAST_OBSERVED and any(
            record.charged and not record.candidate.quantization.aware_steps for record in own
        )
        return known and not self._takes_branches and not self._draws_by_chance(self._next_number)

    @property
    def _takes_branches(self) -> bool:
        """Whether a branch is wanted and still trained: after half of the budget, unlike lengths leave them alone."""
        return bool(self._branches.wanted) and not self._lengths.half_spent

    def ask(self) -> Proposal | None:
        """Return the next trial in the queue; None if there is no time, or too little budget, for any."""
        number = self._left_behind.popleft() if self._left_behind else self._next_number
        if number == self._next_number and not self._enqueue_next(number):
            return None
        trial = self._trial(number)
        sibling_of = trial.user_attrs.get(SIBLING_OF)
        origin = None if sibling_of is None else self._ledger.records.get(sibling_of)
        candidate = suggest(trial, self._space)
        return Proposal(
            trial=trial,
            candidate=candidate,
            sibling_of=sibling_of,
            pays=origin is None or candidate.pruning != origin.candidate.pruning,
            continued=self.was_begun_before(number),
        )

    def _enqueue_next(self, number: int) -> bool:
        """Queue a sibling or a branch if one is wanted, or what the sampler may not choose; otherwise nothing.

        Returns:
            False if there is no time, or too little budget, for another trial.
        """
        if number == 0:
            return True  # the cheapest candidate is queued
        by_chance = self._draws_by_chance(number)
        if self._precisions.wanted:
            self._enqueue(*self._precisions.next_sibling())
        elif first := self._lengths.beginning():
            self._opened.study.enqueue_trial(self._lengths.take_beginning(first))
        elif self.sampler == "growth" and by_chance and self._lengths.too_little:
            self.short_of = "budget"
            return False
        elif self._starts_whole(number):
            # With a part of the parameters given, Optuna asks the sampler for the others.
            self._opened.study.enqueue_trial(uncut_parameters(self._space) | self._lengths.shortest)
        elif self._takes_branches and self._ledger.has_room:
            self._enqueue(*self._branches.take())
        elif by_chance and self._lengths.all:
            self._opened.study.enqueue_trial(self._lengths.shortest)
        elif self.sampler == "growth" and not by_chance:
            return self._enqueue_growth(number)
        return True

    def _enqueue_growth(self, number: int) -> bool:
        """Queue the candidate that is expected to enlarge the front most; one drawn at random if there is none.

        Returns:
            False if there is none because there is no time, or too little budget, for it.
        """
        from scalesearch.analysis.belief import observations_of, timed_of  # they load scikit-learn
        from scalesearch.search.costs import in_seconds, in_trainings
        from scalesearch.search.growth import propose

        now = time.monotonic()
        running_s = {asked.plan.candidate: now - asked.begun for asked in self._ledger.running.values()}
        running = [*running_s]
        records = [record for _, record in sorted(self._ledger.records.items())]
        observed, full = observations_of(records), self._lengths.full_updates
        known = [*running, *(each.candidate for each in observed)]
        soon = in_seconds(self._space, records, running_s, full_updates=full)
        trainings = replace(in_trainings(self._space, known, lengths=self._lengths.all), in_seconds=soon)
        done = replace(soon, running_s={}) if soon and self._sampling.by_time else None
        room = self._lengths.room(trainings, done)
        hopeless = Hopeless(records)

        def found(*, after_others: bool) -> Candidate | None:
            return propose(
                self._space,
                observed,
                running=running,
                cost=soon if soon and self._sampling.by_time else trainings,
                is_open=lambda each: each not in hopeless and self._is_open(each, after_others=after_others),
                seed=seed_of(self._sampling.seed, number),
                lengths=self._lengths.all,
                room=room,
                timed=timed_of(records, self._space.limits.max_latency_ms),
            )

        candidate = found(after_others=False)
        if candidate is None and running:
            candidate = found(after_others=True)
        if candidate:
            self._opened.study.enqueue_trial(trial_parameters(candidate, self._space))
            return True
        self.short_of = "time" if room.too_late else "budget" if room.too_little or self._lengths.too_little else ""
        if not self.short_of and self._lengths.all:
            self._opened.study.enqueue_trial(self._lengths.shortest)
        return not self.short_of

    def _is_open(self, candidate: Candidate, *, after_others: bool) -> bool:
        """Tell whether the candidate is neither known nor refused before its training.

        A network whose weights are trained at this moment, for another precision, costs next to nothing once they are
        stored. Asked for now, it makes its worker wait, so it is open only if it may come `after_others`.
        """
        try:
            plan = self._plan(candidate)
        except (CandidateRejected, StageFailed):
            return False
        refused = plan.rejected_because or self._precisions.refusal(candidate.quantization.precision)
        if refused or self._ledger.is_known(plan.key):
            return False
        return after_others or bool(candidate.quantization.aware_steps) or not self._ledger.is_training(plan.shape_key)

    def _starts_whole(self, number: int) -> bool:
        """Tell whether the trial belongs to the random start and is to be uncut: cuts of the best follow for less.

        Of a small budget, at most half are uncut.
        """
        name, ledger = self.sampler, self._ledger
        wanted = starts_uncut(name, branches=self._branches.allowed)
        if number == 0 or not wanted or ledger.used_up or self._lengths.half_spent:
            return False
        few = self._place(number) < self._lengths.trials(ledger.budget) // 2
        return few and by_chance(number, ledger.unlike_siblings(), name, given=self._lengths.given)

    def _place(self, number: int) -> int:
        """Return how many trials before this one are no siblings."""
        return sum(asked < number for asked in self._ledger.unlike_siblings())

    def _enqueue(self, candidate: Candidate, origin: int) -> None:
        """Make this candidate, found by way of the trial `origin`, the next trial that Optuna gives."""
        parameters = trial_parameters(candidate, self._space)
        self._opened.study.enqueue_trial(parameters, user_attrs={SIBLING_OF: origin})

    def postpone(self, number: int) -> None:
        """Put a trial that was left behind aside until the budget has room for it."""
        self._postponed.append(number)

    def take_postponed(self) -> Iterator[Proposal]:
        """Yield the postponed trials, for which the budget had no room until the end of this run."""
        for number in self._postponed:
            trial = self._trial(number)
            yield Proposal(
                trial=trial, candidate=suggest(trial, self._space), sibling_of=None, pays=True, continued=True
            )
        self._postponed.clear()

    def _trial(self, number: int) -> optuna.Trial:
        """Return the trial of that number: a new one, or one that was left behind."""
        study, sampling = self._opened.study, self._sampling
        name = self._sampler_of(number)
        study.sampler = make_sampler(name, seed=sampling.seed, trial=number, workers=sampling.workers)
        if number < self._next_number:
            left = self._opened.live_trial(number)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.sampler = optuna.samplers.PartialFixedSampler(self._lengths.left(left.params), study.sampler)
            return left
        self._next_number += 1
        trial = study.ask()
        assert trial.number == number  # the lock keeps every other writer out
        return trial

    def _sampler_of(self, number: int) -> SamplerName:
        return "random" if self._draws_by_chance(number) else self.sampler

    def _draws_by_chance(self, number: int) -> bool:
        """Tell whether the trial belongs to the random start, or follows too many that taught the sampler nothing."""
        name, ledger = self.sampler, self._ledger
        idle = ledger.repeats_in_a_row if name in LEARNS_FROM_REJECTED else ledger.free_in_a_row
        start = name not in DRAWS_ITS_START and by_chance(
            number, ledger.unlike_siblings(), name, given=self._lengths.given
        )
        return (start and not self._lengths.half_spent) or idle >= BY_CHANCE_AFTER
