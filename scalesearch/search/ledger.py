"""The trials of a study and the state of each: recorded, running, or waiting for an equal one to finish.

The budget, and how many candidates in a row cost no training, are counted here too.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import optuna

from scalesearch.records.store import RecordStore
from scalesearch.search.events import Ending
from scalesearch.values.plan import Plan
from scalesearch.values.record import StageTime, TrialRecord
from scalesearch.values.settings import UNLIMITED_BUDGET

FREE_IN_A_ROW = 20
"""The run ends after this many candidates in a row that cost no training."""
MEASURED = 0.2
"""How much a candidate counts towards `FREE_IN_A_ROW` if a worker had to measure it. It counts less because there may
be more to find: many candidates in a row are too slow where few are fast enough, or are stored weights in new
precisions."""
GIVEN_UP = "adaptive: "
"""The reason of a trial begins so if its precision was given up, which holds for runs with `--adaptive` alone."""
_DIGITS = 6
"""Decimals to which the sum of charges is rounded, so that three thirds make one."""


@dataclass(slots=True, kw_only=True)
class Asked:
    """A trial that has its candidate and plan, but no record yet."""

    trial: optuna.Trial
    plan: Plan
    sibling_of: int | None = None
    pays: bool = True
    """Whether the budget counts what it trains."""
    shared_updates: int = 0
    """Updates of its trunk that finished trials have made, so that it need not make them."""
    stages: list[StageTime] = field(default_factory=list)
    stage: str = "start"
    stage_since: float = 0.0
    begun: float = field(default_factory=time.monotonic)
    """When a worker got it, by the monotonic clock, in seconds."""

    @property
    def most_charge(self) -> float:
        """The most that the trial may cost of the budget, in full trainings, if its trunk is still stored."""
        steps = self.plan.candidate.recipe.steps
        return self.pays * min(1.0, (steps - self.shared_updates) / (self.plan.full_updates or steps))

    def enter(self, stage: str) -> None:
        """Enter a stage, and note the wall time of the stage that ends with it."""
        now = time.monotonic()
        if self.stage_since:
            self.stages.append(StageTime(stage=self.stage, seconds=now - self.stage_since))
        self.stage, self.stage_since = stage, now


class Ledger:
    """All trials of one study. Its state is derived from the records on disk, so every later run has the same."""

    def __init__(self, folder: Path, *, budget: int) -> None:
        """Read the records of the study in `folder`."""
        self._store, self.budget = RecordStore(folder), budget
        self.records = {record.trial: record for record in self._store.all()}
        self.running: dict[int, Asked] = {}
        self._parked: list[Asked] = []  # wait for an equal trial that is running
        self._finished: dict[str, TrialRecord] = {}  # by key, to answer repeated candidates
        for record in sorted(self.records.values(), key=lambda each: each.trial):
            self._remember(record)
        self.free_in_a_row, self.repeats_in_a_row = 0.0, 0

    @property
    def charged(self) -> float:
        """How much of the budget is used: all updates made so far, counted in full trainings."""
        return round(sum(record.charge for record in self.records.values()), _DIGITS)

    @property
    def left(self) -> float:
        """What would be left of the budget if every running trial made all updates that finished ones do not share."""
        return round(self.budget - self.charged - sum(asked.most_charge for asked in self.running.values()), _DIGITS)

    @property
    def has_room(self) -> bool:
        """Whether some budget is left, whatever the running trials turn out to cost."""
        return self.left > 0

    @property
    def used_up(self) -> bool:
        """Whether the search should stop asking: too many candidates in a row needed no training."""
        return self.free_in_a_row >= FREE_IN_A_ROW

    def go_on(self) -> None:
        """Let a run go on that continues a study which ended because candidates needed no training."""
        if self.used_up:
            self.free_in_a_row = 0.0

    def finished(self, key: str) -> TrialRecord | None:
        """Return the record of finished work with this key, which answers equal candidates; None if there is none."""
        return self._finished.get(key)

    def is_training(self, shape_key: str) -> bool:
        """Tell whether a running trial trains the weights of this key, after pruning."""
        return any(asked.plan.shape_key == shape_key for asked in self.running.values())

    def is_running(self, key: str) -> bool:
        """Tell whether equal work is running."""
        return any(key == asked.plan.key for asked in self.running.values())

    def is_known(self, key: str) -> bool:
        """Tell whether equal work is finished or running, so that there is no need to ask for it."""
        return self.finished(key) is not None or self.is_running(key)

    def unlike_siblings(self) -> Iterator[int]:
        """Yield the number of every trial that the sampler proposed, finished or not; siblings are left out."""
        yield from (record.trial for record in self.records.values() if record.sibling_of is None)
        for asked in (*self.running.values(), *self._parked):
            if asked.sibling_of is None:
                yield asked.trial.number

    def save(self, record: TrialRecord) -> None:
        """Write the record to the disk; this comes before Optuna and the watchers are told of it."""
        self._store.save(record)

    def enter(self, record: TrialRecord) -> None:
        """Enter a record that is on the disk, and answer equal candidates from it from now on."""
        self.records[record.trial] = record
        self._remember(record)

    def count(self, record: TrialRecord) -> None:
        """Update the two counts of candidates in a row that cost no training: with and without the rejected ones.

        Siblings are not counted: this program asks for them, not the sampler, so they do not show how much of the space
        is left.
        """
        if record.sibling_of is not None:
            return
        measured = record.same_as is None and bool(record.stages)
        self.free_in_a_row = 0.0 if record.charged else self.free_in_a_row + (MEASURED if measured else 1)
        taught_nothing = record.state == "failed" or not measured
        again = not record.charged and record.state != "rejected" and taught_nothing
        self.repeats_in_a_row = self.repeats_in_a_row + 1 if again else 0

    def park(self, asked: Asked) -> None:
        """Let a trial wait for the running trial with the same key, whose results it then gets too."""
        self._parked.append(asked)
        if asked.sibling_of is None:
            self.free_in_a_row += 1
            self.repeats_in_a_row += 1

    def take_parked(self, key: str) -> list[Asked]:
        """Remove and return the trials that wait for this key."""
        waiting = [asked for asked in self._parked if asked.plan.key == key]
        self._parked = [asked for asked in self._parked if asked.plan.key != key]
        return waiting

    def ending(
        self, *, interrupted: bool, short_of: Literal["", "time", "budget"] = "", owed: int
    ) -> tuple[Ending, str]:
        """Return how the run ended and a sentence that says why.

        Args:
            interrupted: Whether somebody stopped it.
            short_of: What was lacking for another candidate, while there were some to ask for.
            owed: Number of trials that are still to be evaluated.
        """
        out_of_time = short_of == "time"
        if self.charged >= self.budget and not ((interrupted or out_of_time) and owed):
            return "budget", self._trained
        if interrupted:
            return "interrupted", f"stopped at {self._done}; run again to continue"
        if out_of_time:
            return "time", f"the time is up at {self._done}; run again to go on"
        if short_of == "budget":
            return "budget", f"{self._trained}: the rest of the budget suffices for no other"
        last = [self.records[number] for number in sorted(self.records)[-FREE_IN_A_ROW:]]
        rejected = sum(record.state == "rejected" for record in last)
        repeats = sum(record.same_as is not None for record in last)
        others = len(last) - rejected - repeats
        if 2 * rejected > len(last):
            cause = "the limits are too tight"
        elif 2 * others > len(last):
            cause = "there is nothing left to train (run again to measure more)"
        else:
            cause = "the space is exhausted"
        return "exhausted", (
            f"{cause}: of the last {len(last)} candidates none needed training ({rejected} broke a limit, {repeats} "
            f"repeated an earlier one, {others} used its weights)"
        )

    @property
    def _done(self) -> str:
        whole = f"{self.charged:g}"
        return f"{whole} full trainings" if self.budget == UNLIMITED_BUDGET else f"{whole} of {self.budget}"

    @property
    def _trained(self) -> str:
        """How many candidates were trained, in words; with shared trunks also how many full trainings that cost."""
        candidates = sum(record.charged for record in self.records.values())
        shared = "" if candidates == self.charged else f" with the updates of {self.charged:.1f} full trainings"
        return f"{candidates} candidates trained{shared}"

    def _remember(self, record: TrialRecord) -> None:
        if record.key and record.same_as is None and not record.reason.startswith(GIVEN_UP):
            self._finished.setdefault(record.key, record)
