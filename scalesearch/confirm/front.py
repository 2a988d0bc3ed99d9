"""Confirms a front after the search: its members are trained anew at full length, deployed and timed again.

The trainings start from fresh seeds.
"""

import math
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scalesearch.analysis.confirmation import Confirmation, confirm_moves, mean_latency
from scalesearch.analysis.front import knee, picture
from scalesearch.chain.planner import Planner
from scalesearch.confirm.files import write_confirmation
from scalesearch.confirm.request import check_request
from scalesearch.confirm.setup import (
    lay_reference,
    refuse_another_device,
    study_and_front,
    work_session,
)
from scalesearch.confirm.timing import ROUNDS, Entry, TimingLost, time_together
from scalesearch.confirm.training import Job, LostRun, train_jobs
from scalesearch.data.finding import find_study_data, with_data
from scalesearch.deployment.export_cache import ExportCache
from scalesearch.errors import ConfigError
from scalesearch.execution.stopping import stop_signals
from scalesearch.files import remove_partial_files
from scalesearch.folder_lock import FolderHold, hold_folder
from scalesearch.records.confirmed import FOLDER, confirmed_model_path, read_confirmed, write_confirmed
from scalesearch.records.front_scores import read_front_scores
from scalesearch.records.stored_files import confirmed_model, kept_reference
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.identity import seed_from
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.training_length import full_length, updates
from scalesearch.views.words import percent

DEFAULT_SEEDS = 2
_WAY_OUT = "Wait until it ends, or stop it: what it has done so far is kept."


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmOutcome:
    """How a confirmation ended."""

    ended: Literal["complete", "interrupted"]
    confirmation: Confirmation | None
    """None where it was interrupted, or where no training was completed."""
    done: int
    """Number of trainings that are on disk, of the `asked` ones."""
    asked: int
    lost: tuple[LostRun, ...]
    timing_lost: str = ""
    """Why there is no session that timed all members in turn; empty where there is one."""


def confirm_front(
    folder: Path | str,
    *,
    top: int | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    seeds: int = DEFAULT_SEEDS,
    fresh: bool = False,
    data: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> ConfirmOutcome:
    """Train members of a study's front at full length and time them; the same call continues a stopped one.

    Nothing of the study itself is changed: all files are written to its folder `confirmed/`. Ctrl-C and SIGTERM end it
    cleanly.

    Args:
        folder: The study's folder.
        top: Number of members, those nearest to the knee; None takes all.
        steps: Updates of one training; None (and no `epochs`): 8 times the search's.
        epochs: Passes over the training images, instead of `steps`.
        seeds: Trainings of each member.
        fresh: Start anew; what was confirmed before is kept beside it.
        data: Where the study's images are now, if they were moved.
        say: Is called with one line for each step that takes time.

    Raises:
        ConfigError: No study, another chip or other images than its own, other trainings there already, no such place,
            or another process works on it.
        NoFeasibleTrialError: The study has no front.
    """
    check_request(top=top, steps=steps, epochs=epochs, seeds=seeds)
    folder = Path(folder)
    session, members = study_and_front(folder)
    members = members if top is None else nearest_knee(members, top)
    refuse_another_device(session)
    kept_reference(session)  # a wrong file there is reported before anything is moved or made
    session = with_data(session, data)
    with _held(folder) as hold, stop_signals() as stopped:
        if fresh:
            hold.set_aside()
        remove_partial_files(folder / FOLDER)
        work = work_session(session)
        say("data: comparing with what the study was run on")
        found = find_study_data(session)
        work = replace(work, run_folder=found.folder)  # older studies lack it: workers then look there at once
        lay_reference(session, work, found.dataset)
        jobs = _jobs(work, members, seeds, steps=steps, epochs=epochs)
        left = _unfinished(folder, jobs)
        say(_intention(members, seeds, left, session.settings.workers))
        lost = train_jobs(work, folder, left, stopped=stopped, on_end=lambda job, end: say(_end_text(job, end, seeds)))
        runs = _asked_runs(folder, jobs)
        outcome = ConfirmOutcome(ended="interrupted", confirmation=None, done=len(runs), asked=len(jobs), lost=lost)
        if stopped.is_set() or not runs:
            return outcome if stopped.is_set() else replace(outcome, ended="complete")
        timing_lost = _timed(work, folder, members, runs, stopped=stopped, say=say)
        if timing_lost is None:
            return outcome
        runs = _asked_runs(folder, jobs)
        confirmation = confirm_moves(members, runs, read_front_scores(folder))
        assert confirmation is not None  # there are runs, all of members
        write_confirmation(folder, session, confirmation, runs, lost=[(x.trial, x.seed, x.reason) for x in lost])
        shutil.rmtree(work.folder / "models", ignore_errors=True)
        ExportCache(work.folder).clear()
        return replace(outcome, ended="complete", confirmation=confirmation, timing_lost=timing_lost)


@contextmanager
def _held(study: Path) -> Iterator[FolderHold]:
    """Hold the study and its `confirmed/`, and give the hold of `confirmed/`.

    So no run changes the front or removes its models meanwhile. Both are held because an earlier version of this
    program held only `confirmed/`.
    """
    with (
        hold_folder(study, "confirmation", way_out=_WAY_OUT),
        hold_folder(study / FOLDER, "confirmation", way_out=_WAY_OUT) as hold,
    ):
        yield hold


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


def nearest_knee(front: Sequence[MeasuredTrial], count: int) -> tuple[MeasuredTrial, ...]:
    """Return the `count` members nearest to the knee (the knee included), fastest first.

    Distance is measured where the knee is found: in accuracy and log latency, each scaled to 0..1 over the front.
    """
    balance = knee(front)
    if balance is None:
        return ()
    places = {record.trial: place for record, place in zip(front, picture(front), strict=True)}
    near = sorted(front, key=lambda record: math.dist(places[record.trial], places[balance.trial]))[:count]
    return tuple(record for record in front if record in near)


def _jobs(
    work: Session, members: Sequence[MeasuredTrial], seeds: int, *, steps: int | None, epochs: int | None
) -> tuple[Job, ...]:
    """Return one job for each member and seed.

    All members' first seed comes first, so that a stopped confirmation has at least one run of each member.
    """
    jobs = list[Job]()
    for place, seed in enumerate(fresh_seeds(work, seeds), 1):
        planner = Planner(replace(work, settings=replace(work.settings, seed=seed)))
        for record in members:
            recipe = full_length(
                record.candidate.recipe, steps=steps, epochs=epochs, train_images=work.data.train_images
            )
            plan = planner.plan_spec(record.spec, replace(record.candidate, recipe=recipe))
            jobs.append(Job(number=len(jobs), record=record, seed=seed, seed_place=place, plan=plan))
    return tuple(jobs)


def _unfinished(folder: Path, jobs: Sequence[Job]) -> tuple[Job, ...]:
    """Return the jobs without a run on disk.

    Raises:
        ConfigError: A run of the same member and seed is there with another length (or program version), or its model
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


def _asked_runs(folder: Path, jobs: Sequence[Job]) -> tuple[ConfirmedRun, ...]:
    """Return the runs on disk that were asked for, those of the first seed first."""
    there = {(run.trial, run.seed): run for run in read_confirmed(folder)}
    found = [there.get((job.record.trial, job.seed)) for job in jobs]
    return tuple(run for run in found if run is not None)


def _timed(
    work: Session,
    folder: Path,
    members: Sequence[MeasuredTrial],
    runs: Sequence[ConfirmedRun],
    *,
    stopped: threading.Event,
    say: Callable[[str], None],
) -> str | None:
    """Time all members' first runs in one session, if none has done so yet.

    Returns:
        Empty once one session has timed them all; otherwise the reason why not; None if `stopped` was set first.
    """
    first = {run.trial: run for run in reversed(runs)}
    trials = tuple(record.trial for record in members if record.trial in first)
    if all(first[trial].timed_together == trials for trial in trials):
        return ""
    say(f"latency: {len(trials)} engines in turn, {ROUNDS} rounds, in one fresh process")
    entries = [
        Entry(
            trial=record.trial,
            model=confirmed_model_path(folder, record.trial, first[record.trial].seed),
            pruning=record.candidate.pruning,
        )
        for record in members
        if record.trial in first
    ]
    answer = time_together(work, entries, stopped=stopped)
    if answer is None or isinstance(answer, TimingLost):
        return answer.reason if answer else None
    for trial, rounds in answer.items():
        latency = mean_latency(rounds)
        write_confirmed(folder, replace(first[trial], latency=latency, latency_rounds=rounds, timed_together=trials))
    for run in runs:  # a session may have timed them before the first seed's run existed
        if run.timed_together and run.seed != first[run.trial].seed:
            write_confirmed(folder, replace(run, timed_together=()))
    return ""


def _intention(members: Sequence[MeasuredTrial], seeds: int, left: Sequence[Job], workers: int) -> str:
    """Say what is about to be done, and how long it takes if an update takes as long as in the search."""
    total = len(members) * seeds
    text = f"{len(members)} front member{'s' * (len(members) > 1)} x {seeds} seed{'s' * (seeds > 1)}: "
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


def _end_text(job: Job, end: MeasuredTrial | LostRun, seeds: int) -> str:
    name = f"trial {job.record.trial}, seed {job.seed_place} of {seeds}"
    if isinstance(end, LostRun):
        return f"{name}: lost, {end.reason}"
    return (
        f"{name}: {end.training.steps} steps in {end.training.train_s + end.training.retrain_s:.0f} s, validation "
        f"{percent(job.record.quality.score)} -> {percent(end.quality.score)}"
    )
