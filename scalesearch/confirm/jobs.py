"""The trainings of a confirmation: of which members, from which seeds, how long, and which of them are on disk."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scalesearch.chain.planner import Planner
from scalesearch.confirm.members import full_recipe
from scalesearch.confirm.request import ConfirmRequest
from scalesearch.confirm.training import Job, LostRun
from scalesearch.errors import ConfigError
from scalesearch.records.confirmed import FOLDER, read_confirmed
from scalesearch.records.stored_files import confirmed_model
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.identity import seed_from
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.training_length import updates
from scalesearch.views.words import percent


def fresh_seeds(session: Session, count: int) -> tuple[int, ...]:
    """Return seeds that the search did not use.

    They are derived from the study's own seed, so the same call gives the same ones.
    """
    own, found, place = session.settings.seed, list[int](), 0
    while len(found) < count:
        place += 1
        seed = seed_from("confirm", own, session.data.fingerprint, place)
        if seed != own and seed not in found:
            found.append(seed)
    return tuple(found)


def jobs_of(work: Session, members: Sequence[MeasuredTrial], request: ConfirmRequest) -> tuple[Job, ...]:
    """Return one job for each member and seed.

    The jobs of the first seed come first, so that a stopped confirmation is likely to have a run of each member.
    """
    jobs = list[Job]()
    for place, seed in enumerate(fresh_seeds(work, request.seeds), 1):
        planner = Planner(replace(work, settings=replace(work.settings, seed=seed)))
        for record in members:
            recipe = full_recipe(record, request, train_images=work.data.train_images)
            candidate = replace(record.candidate, recipe=recipe)
            plan = planner.plan_spec(record.spec, candidate, cut_from=record.cut_from)
            jobs.append(Job(number=len(jobs), record=record, seed=seed, seed_place=place, plan=plan))
    return tuple(jobs)


def unfinished(folder: Path, jobs: Sequence[Job]) -> tuple[Job, ...]:
    """Return the jobs without a run on disk.

    Raises:
        ConfigError: A run of the same member and seed exists with another length (or program version), or its model
            is not the file that was confirmed.
    """
    there = {(run.trial, run.seed): run for run in read_confirmed(folder)}
    left = list[Job]()
    for job in jobs:
        run = there.get((job.record.trial, job.seed))
        if run is None or confirmed_model(folder, run) is None:
            left.append(job)
        elif run.key != job.plan.key:
            asked = updates(job.plan.candidate.recipe, pruned=job.plan.pruning.any)
            message = (
                f"{folder / FOLDER} holds trial {run.trial} trained for {run.steps} steps, and {asked} are asked for: "
                "unlike trainings may not share a front.\nGive the old length to continue it, or --fresh to confirm "
                "anew (the old folder is kept)."
            )
            raise ConfigError(message)
    return tuple(left)


def asked_runs(folder: Path, jobs: Sequence[Job]) -> tuple[ConfirmedRun, ...]:
    """Return the runs on disk that were asked for, those of the first seed first."""
    there = {(run.trial, run.seed): run for run in read_confirmed(folder)}
    found = [there.get((job.record.trial, job.seed)) for job in jobs]
    return tuple(run for run in found if run is not None)


def intention(
    members: Sequence[MeasuredTrial], seeds: int, left: Sequence[Job], workers: int, *, added: Sequence[MeasuredTrial]
) -> str:
    """Say what is about to be done, and how long it takes if an update takes as long as in the search."""
    total = (len(members) + len(added)) * seeds
    numbers = ", ".join(str(record.trial) for record in added)
    beside = f" and trial{'s' * (len(added) > 1)} {numbers} beside them" if added else ""
    text = f"{len(members)} front member{'s' * (len(members) > 1)}{beside} x {seeds} seed{'s' * (seeds > 1)}: "
    if not left:
        return f"{text}all {total} trainings are on disk"
    seconds = 0.0
    for job in left:
        training = job.record.training
        if training and training.steps:
            longer = job.plan.candidate.recipe.steps / job.record.candidate.recipe.steps
            seconds += (training.train_s + training.retrain_s) * longer / workers
    time = f"{seconds / 60:.0f} min" if seconds > 90 else f"{max(seconds, 1):.0f} s"
    return f"{text}{len(left)} of {total} trainings to do, about {time} of training"


def end_text(job: Job, end: MeasuredTrial | LostRun, seeds: int) -> str:
    """Return one training's result as a line."""
    name = f"trial {job.record.trial}, seed {job.seed_place} of {seeds}"
    if isinstance(end, LostRun):
        return f"{name}: lost, {end.reason}"
    return (
        f"{name}: {end.training.steps} steps in {end.training.train_s + end.training.retrain_s:.0f} s, validation "
        f"{percent(job.record.quality.score)} -> {percent(end.quality.score)}"
    )
