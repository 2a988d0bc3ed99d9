"""Choose the trials to confirm: members of the front, and others that were requested now or before. No torch."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from scalesearch.analysis.confirmation import added_trials
from scalesearch.analysis.front import knee, pareto_front, picture
from scalesearch.analysis.likely_members import correct
from scalesearch.config.checks import require_branch
from scalesearch.confirm.request import ConfirmRequest, length_flags, length_of
from scalesearch.errors import ConfigError
from scalesearch.records.confirmed import FOLDER, confirmed_path, read_confirmed
from scalesearch.study.view import stored_confirmation
from scalesearch.values.candidate import Recipe
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.training_length import aware_updates, full_length, least_steps, updates, was_retrained
from scalesearch.views.confirmed_lengths import trained_words
from scalesearch.views.words import verdict


def nearest_knee(front: Sequence[MeasuredTrial], count: int) -> tuple[MeasuredTrial, ...]:
    """Return the `count` members nearest to the knee (the knee included), fastest first.

    Distance is measured where the knee is found: in score and log latency, each scaled to 0..1 over the front.
    """
    balance = knee(front)
    if balance is None:
        return ()
    places = {record.trial: place for record, place in zip(front, picture(front), strict=True)}
    near = sorted(front, key=lambda record: math.dist(places[record.trial], places[balance.trial]))[:count]
    return tuple(record for record in front if record in near)


def asked_members(
    folder: Path, records: Sequence[TrialRecord], request: ConfirmRequest
) -> tuple[tuple[MeasuredTrial, ...], tuple[MeasuredTrial, ...]]:
    """Return the front members to be confirmed, fastest first, and the other trials that the request asks for.

    Args:
        folder: The study's folder.
        records: All trials of the study.
        request: What is asked for.

    Raises:
        ConfigError: A requested trial cannot be confirmed, or corrected scores are asked for before anything was
            confirmed.
    """
    front = pareto_front(records)
    members = front if request.top is None else nearest_knee(front, request.top)
    there = {record.trial: record for record in records}
    named = {trial: _confirmable(trial, there, members) for trial in request.also}
    if request.also_likely:
        named |= {record.trial: record for record in _likely(folder, front, records)}
    members = tuple(record for record in front if record in members or record.trial in named)
    beside = set(named) - {record.trial for record in members}
    return members, tuple(named[trial] for trial in sorted(beside))


def full_recipe(record: MeasuredTrial, request: ConfirmRequest, *, train_images: int) -> Recipe:
    """Return the recipe by which the request trains the trial's network, on that many images."""
    return full_length(
        record.candidate.recipe,
        full_updates=record.full_updates,
        steps=request.steps,
        epochs=request.epochs,
        train_images=train_images,
    )


def require_branches(members: Iterable[MeasuredTrial], request: ConfirmRequest, *, train_images: int) -> None:
    """Raise ConfigError if the requested length is too short for a member whose training simulates rounding."""
    asked = list[tuple[int, Recipe, MeasuredTrial]]()
    for record in members:
        recipe = full_recipe(record, request, train_images=train_images)
        aware = aware_updates(recipe, record.candidate.quantization)
        asked.append((least_steps(recipe, branch=aware + 1) if aware else 0, recipe, record))
    for _, recipe, record in sorted(asked, key=lambda one: -one[0]):  # the length that is told is enough for all
        require_branch(recipe, record.candidate.quantization, origin=f"trial {record.trial}")


def refuse_unlike_lengths(
    folder: Path, records: Sequence[TrialRecord], request: ConfirmRequest, *, train_images: int
) -> None:
    """Raise ConfigError if any trial of the study was confirmed at another length than the request asks for.

    It need not be one of those that are confirmed now: whatever is confirmed is compared.
    """
    there = {record.trial: measured for record in records if (measured := record.measured)}
    trained = [(there[run.trial], run) for run in read_confirmed(folder) if run.trial in there]

    def asked(record: MeasuredTrial) -> int:
        recipe = full_recipe(record, request, train_images=train_images)
        return updates(recipe, pruned=was_retrained(record))

    unlike = [(record, run) for record, run in trained if run.steps != asked(record)]
    if not unlike:
        return
    told = sorted({asked(record) for record, _ in unlike})
    length = length_of([(record, run.steps) for record, run in trained], train_images=train_images)
    if length:
        flags = " ".join(length_flags(length))
        way_on = f"Give {flags or 'no length'} to go on with it"
    else:  # an earlier version let them lie side by side
        first = confirmed_path(folder, unlike[0][1].trial, unlike[0][1].seed).name
        way_on = f"Remove those files ({first}, ...) to go on without them"
    message = (
        f"{folder / FOLDER} holds {trained_words(run for _, run in unlike)}, and {' or '.join(map(str, told))} are "
        "asked for: unlike trainings may not share a front.\n"
        f"{way_on}, or give --fresh to confirm anew (the old folder is kept)."
    )
    raise ConfigError(message)


def added_before(
    folder: Path, records: Sequence[TrialRecord], *, front: Sequence[MeasuredTrial]
) -> tuple[MeasuredTrial, ...]:
    """Return the trials off the front that an earlier call confirmed, by trial number."""
    return added_trials(front, records, read_confirmed(folder))


def _confirmable(trial: int, records: dict[int, TrialRecord], members: Sequence[MeasuredTrial]) -> MeasuredTrial:
    record = records.get(trial)
    if record is None:
        message = f"--also {trial}: no such trial; this study has {len(records)}, {min(records)} to {max(records)}."
        raise ConfigError(message)
    if record.same_as is not None:
        message = (
            f"--also {trial}: that trial is the same network as trial {record.same_as}, and was answered from it.\n"
            f"Name trial {record.same_as}, if it is not on the front."
        )
        raise ConfigError(message)
    measured = record.measured
    if measured is None or not record.feasible:
        words = verdict(record)
        told = f"is {words}" if measured else f"is not complete ({words})"
        message = f"--also {trial}: that trial {told}.\nExpected a complete trial of full length within all limits."
        raise ConfigError(message)
    if trial in {member.trial for member in members}:
        message = f"--also {trial}: that trial is on the front already, and is confirmed without --also."
        raise ConfigError(message)
    return measured


def _likely(folder: Path, front: Sequence[MeasuredTrial], records: Sequence[TrialRecord]) -> tuple[MeasuredTrial, ...]:
    confirmation = stored_confirmation(folder, front, records)
    if confirmation is None:
        message = (
            f"--also auto: nothing on the front of {folder} was confirmed yet, so no score can be corrected.\n"
            "Run `scalesearch confirm` without it first."
        )
        raise ConfigError(message)
    return tuple(one.record for one in correct(confirmation, front, records).likely)
