"""Which confirmed runs are of one length: unlike ones never share a front. No I/O."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.training_length import recipe_of, was_retrained


@dataclass(frozen=True, slots=True, kw_only=True)
class OneLength:
    """Confirmed runs that may share a front, and those of other lengths."""

    runs: tuple[ConfirmedRun, ...]
    left_out: tuple[ConfirmedRun, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Length:
    """The length of a run. Two of these numbers are told apart by the batch size or by the search's own lengths."""

    run: ConfirmedRun
    updates: int
    factor: float
    """Updates by those of the search's training."""
    images: int
    batch_size: int


def recipe_updates(record: MeasuredTrial, steps: int) -> int:
    """Return the updates of the recipe of a trial's training of `steps` in all, those that retrain it aside."""
    return recipe_of(record.candidate.recipe, total_steps=steps, pruned=was_retrained(record)).steps


def of_one_length(
    runs: Iterable[ConfirmedRun], records: Iterable[TrialRecord], front: Iterable[MeasuredTrial]
) -> OneLength:
    """Return the runs of that length which most members of the searched front have; of two such, of the longer one.

    Lengths are alike if they are equal in updates, in passes over the images, or in how many times longer they are than
    the search's: by one of these a confirmation asks for them. Runs of trials without results stay: nothing compares
    them. Earlier versions confirmed trials at unlike lengths if they were not confirmed together.
    """
    runs, members = tuple(runs), {record.trial for record in front}
    there = {record.trial: measured for record in records if (measured := record.measured)}
    lengths = [_length(run, there[run.trial]) for run in runs if run.trial in there]
    if not lengths:
        return OneLength(runs=runs)
    groups = [[one for one in lengths if alike(one, first)] for alike in _ALIKE for first in lengths]
    kept = max(groups, key=lambda group: _weight(group, members))
    other = {(one.run.trial, one.run.seed) for one in lengths} - {(one.run.trial, one.run.seed) for one in kept}
    return OneLength(
        runs=tuple(run for run in runs if (run.trial, run.seed) not in other),
        left_out=tuple(run for run in runs if (run.trial, run.seed) in other),
    )


def _length(run: ConfirmedRun, record: MeasuredTrial) -> _Length:
    recipe, updates = record.candidate.recipe, recipe_updates(record, run.steps)
    return _Length(
        run=run,
        updates=updates,
        factor=updates / recipe.steps,
        images=updates * recipe.batch_size,
        batch_size=recipe.batch_size,
    )


_ALIKE: tuple[Callable[[_Length, _Length], bool], ...] = (
    lambda one, other: one.updates == other.updates,
    lambda one, other: math.isclose(one.factor, other.factor),
    # Whole passes are rounded up to whole batches.
    lambda one, other: abs(one.images - other.images) < max(one.batch_size, other.batch_size),
)


def _weight(group: Sequence[_Length], members: set[int]) -> tuple[int, int, int]:
    trials = {one.run.trial for one in group}
    return len(trials & members), len(trials), max(one.updates for one in group)
