"""Confirms a front after the search: its members are trained anew at full length, deployed and timed again.

The trainings start from fresh seeds.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scalesearch.analysis.confirmation import Confirmation, confirm_moves
from scalesearch.analysis.confirmed_latency import mean_latency
from scalesearch.analysis.front import pareto_front
from scalesearch.analysis.likely_members import Correction, correct
from scalesearch.confirm.files import write_confirmation
from scalesearch.confirm.jobs import asked_runs, end_text, intention, jobs_of, unfinished
from scalesearch.confirm.members import added_before, asked_members, refuse_unlike_lengths, require_branches
from scalesearch.confirm.request import ConfirmRequest
from scalesearch.confirm.setup import (
    lay_parent,
    lay_reference,
    lay_trunks,
    refuse_another_device,
    study_with_front,
    work_session,
)
from scalesearch.confirm.timing import ROUNDS, Entry, TimingLost, time_together
from scalesearch.confirm.training import LostRun, train_jobs
from scalesearch.data.finding import find_study_data, with_data
from scalesearch.deployment.export_cache import ExportCache
from scalesearch.execution.stopping import stop_signals
from scalesearch.files import remove_partial_files
from scalesearch.folder_lock import FolderHold, hold_folder
from scalesearch.records.confirmed import FOLDER, confirmed_model_path, write_confirmed
from scalesearch.records.front_scores import read_front_scores
from scalesearch.records.stored_files import kept_reference
from scalesearch.study.own_module import require_same_code
from scalesearch.tasks.registry import sources_of
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.session import Session

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
    correction: Correction | None = None
    """What the confirmed trials show about the searched front; None where there is no `confirmation`."""


def confirm_front(
    folder: Path | str,
    request: ConfirmRequest | None = None,
    *,
    fresh: bool = False,
    data: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> ConfirmOutcome:
    """Train members of a study's front at full length and time them; the same call continues a stopped one.

    Nothing of the study itself is changed: all files are written to its folder `confirmed/`. Ctrl-C and SIGTERM end it
    cleanly.

    Args:
        folder: The study's folder.
        request: Which members, how long and how often; by default all of them, 8 times as long as in the search (4
            times where the search's lengths are unlike).
        fresh: Start anew; the earlier `confirmed/` is renamed and kept. The seeds are the same, so trainings go on from
            its trunks.
        data: Where the study's images are now, if they were moved.
        say: Is called with one line for each step that takes time.

    Raises:
        ConfigError: There is no study in `folder`, the chip or the images are not the study's, `confirmed/` holds
            trainings of another length, the length is too short for a member, the folder cannot be written, or another
            process works on it.
        NoFeasibleTrialError: The study has no front.
    """
    request, folder = request or ConfirmRequest(), Path(folder)
    session, records = study_with_front(folder)
    # A wrong trial or length is reported before anything is moved or made.
    members, named = asked_members(folder, records, request)
    require_branches((*members, *named), request, train_images=session.data.train_images)
    refuse_another_device(session)
    require_same_code(session)
    kept_reference(session)  # a wrong file there is reported before anything is moved or made
    session = with_data(session, data, sources_of(session.settings.task))
    with _held(folder) as hold, stop_signals() as stopped:
        members, named = asked_members(folder, records, request)  # may read `confirmed/`: not after `set_aside`
        aside = hold.set_aside() if fresh else None
        remove_partial_files(folder / FOLDER)
        refuse_unlike_lengths(folder, records, request, train_images=session.data.train_images)
        before = added_before(folder, records, front=pareto_front(records))
        added = {record.trial: record for record in (*named, *before)}
        if request.also_likely and not named:
            say("--also auto: the corrected scores put no further trial on the front")
        chosen = _Chosen(records=records, members=members, added=tuple(added[trial] for trial in sorted(added)))
        return _confirm(session, chosen, request, aside=aside, stopped=stopped, say=say)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """The trials that are confirmed."""

    records: Sequence[TrialRecord]
    """All trials of the study."""
    members: Sequence[MeasuredTrial]
    """Those on the front, fastest first."""
    added: Sequence[MeasuredTrial]
    """Those off the front, by trial number."""

    @property
    def all(self) -> tuple[MeasuredTrial, ...]:
        return (*self.members, *self.added)


def _confirm(
    session: Session,
    chosen: _Chosen,
    request: ConfirmRequest,
    *,
    aside: Path | None,
    stopped: threading.Event,
    say: Callable[[str], None],
) -> ConfirmOutcome:
    """Train, time and compare the members; the study's folder is held.

    Trainings go on from trunks of a confirmation that was set `aside`.
    """
    folder, work = session.folder, work_session(session)
    say("data: comparing with what the study was run on")
    found = find_study_data(session, sources_of(session.settings.task))
    work = replace(work, run_folder=found.folder)  # older studies do not store it; workers look there first
    lay_reference(session, work, found.dataset)
    lay_parent(session, work)
    jobs = jobs_of(work, chosen.all, request)
    left = unfinished(folder, jobs)
    say(intention(chosen.members, request.seeds, left, session.settings.workers, added=chosen.added))
    plans = [job.plan for job in left]
    if aside and (laid := lay_trunks(aside, work, plans)):
        trunks = len({plan.trunk_key for plan in plans if plan.trunk_key})
        say(f"trunks: {laid} of {trunks} go on from those of the same seeds in {aside.name}")
    lost = train_jobs(
        work, folder, left, stopped=stopped, on_end=lambda job, end: say(end_text(job, end, request.seeds))
    )
    runs = asked_runs(folder, jobs)
    outcome = ConfirmOutcome(ended="interrupted", confirmation=None, done=len(runs), asked=len(jobs), lost=lost)
    if stopped.is_set() or not runs:
        return outcome if stopped.is_set() else replace(outcome, ended="complete")
    timing_lost = _timed(work, folder, chosen.all, runs, stopped=stopped, say=say)
    if timing_lost is None:
        return outcome
    runs = asked_runs(folder, jobs)
    confirmation = confirm_moves(chosen.members, runs, read_front_scores(folder), added=chosen.added)
    assert confirmation is not None  # there are runs, all of chosen trials
    correction = correct(confirmation, pareto_front(chosen.records), chosen.records)
    lines = [(each.trial, each.seed, each.reason) for each in lost]
    write_confirmation(folder, session, confirmation, correction, runs=runs, lost=lines)
    shutil.rmtree(work.folder / "models", ignore_errors=True)
    ExportCache(work.folder).clear()
    return replace(outcome, ended="complete", confirmation=confirmation, timing_lost=timing_lost, correction=correction)


@contextmanager
def _held(study: Path) -> Iterator[FolderHold]:
    """Hold the study and its `confirmed/`, and yield the hold of `confirmed/`.

    While the study is held, no run can change its front or remove its models. `confirmed/` is held too because an
    earlier version of this program held only that folder.
    """
    with (
        hold_folder(study, "confirmation", way_out=_WAY_OUT),
        hold_folder(study / FOLDER, "confirmation", way_out=_WAY_OUT) as hold,
    ):
        yield hold


def _timed(
    work: Session,
    folder: Path,
    members: Sequence[MeasuredTrial],
    runs: Sequence[ConfirmedRun],
    *,
    stopped: threading.Event,
    say: Callable[[str], None],
) -> str | None:
    """Time all members' first runs in one session, if none has done so yet, of them or of them and others.

    Returns:
        Empty once one session has timed them all; otherwise the reason why not; None if `stopped` was set first.
    """
    first = {run.trial: run for run in reversed(runs)}
    trials = tuple(record.trial for record in members if record.trial in first)
    sessions = {first[trial].timed_together for trial in trials}
    if len(sessions) == 1 and set(trials) <= set(*sessions):
        return ""
    say(f"latency: {len(trials)} engines in turn, {ROUNDS} rounds, in one fresh process")
    entries = [
        Entry(
            trial=record.trial,
            model=confirmed_model_path(folder, record.trial, first[record.trial].seed),
            pruning=record.candidate.pruning,
            postprocessing=first[record.trial].latency.postprocessing,
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
    for run in runs:  # an earlier session may have timed a later seed's run
        if run.timed_together and run.seed != first[run.trial].seed:
            write_confirmed(folder, replace(run, timed_together=()))
    return ""
