"""A whole search as one call: session, study, tables, pictures, and the second evaluation of the front."""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from scalesearch.analysis.baselines import start_samplers
from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.chain.inheritance import tuned_apart, tuning_ahead
from scalesearch.chain.planner import Planner
from scalesearch.dashboard.publisher import DashboardListener, annotate_missing
from scalesearch.deployment.export_cache import ExportCache
from scalesearch.errors import ScalesearchError, StageFailed
from scalesearch.execution.child_process import ChildLost, ChildStopped, run_apart
from scalesearch.execution.stopping import interrupted_by_sigterm, stop_signals
from scalesearch.files import remove_partial_files
from scalesearch.folder_lock import FolderHold, hold_folder
from scalesearch.records.store import RecordStore
from scalesearch.search.coordinator import run_study
from scalesearch.search.events import ENDED_WHOLE, Event, StudyOutcome, TrialFinished
from scalesearch.search.problem import Problem
from scalesearch.search.showing import Watchers
from scalesearch.search.storage import opened_study
from scalesearch.study.front_looks import FrontLooks
from scalesearch.study.keeper import Keeper
from scalesearch.study.preparation import Preparation
from scalesearch.study.session import open_session
from scalesearch.tasks.registry import task_for
from scalesearch.values.latency import LATENCY_NAMES
from scalesearch.values.session import Session, trial_of_model
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace


def run_search(
    settings: RunSettings,
    space: SearchSpace,
    folder: Path,
    *,
    on_event: Callable[[Event], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    hold: FolderHold | None = None,
) -> StudyOutcome:
    """Begin or continue a search in `folder`, write its tables, pictures and models, and return the outcome.

    The folder is held from before the first write to after the last; a caller that holds it already passes its `hold`.
    Ctrl-C and SIGTERM end the search cleanly: as KeyboardInterrupt before it begins, as `outcome.ended` from then on.

    Raises:
        ConfigError: Something given is wrong, the study there was made with other settings, or another process works on
            it.
        MissingBackendError: The target's backend is not installed.
    """
    with hold_folder(folder, "run", held=hold), interrupted_by_sigterm():
        clear_leftovers(folder, say)
        preparation = Preparation()
        session = open_session(settings, space, folder, say=say, preparation=preparation, searches=True)
        settings = replace(settings, sampler=session.settings.sampler, lengths=session.settings.lengths)
        RecordStore(folder).make_longer(session.full_updates)
        for warning in session.data.warnings:
            say(f"warning: {warning}")
        with preparation.training():
            tuned = tune_parent(session, say)
        for line in tuned:
            say(line)
        caption = f"{session.data_words}, {session.data.val_images} validation images"
        metric = task_for(settings).metric
        keeper, exports = Keeper(folder, caption, metric=metric), ExportCache(folder)

        def heard(event: Event) -> None:
            if isinstance(event, TrialFinished):
                keeper.keep(event.record)
            on_event(event)

        problem = Problem(
            space=session.space,
            plan=Planner(session),
            make_evaluator=functools.partial(TrialEvaluator, session, exports=exports),
            full_updates=session.full_updates,
            metric=metric,
            latency=LATENCY_NAMES[settings.latency.objective],
        )
        samplers = start_samplers(session)
        listener = DashboardListener(folder, session.space, samplers, settings.task)
        watchers = Watchers(on_event=heard, listener=listener)
        outcome = run_study(
            folder,
            problem,
            settings,
            watchers=watchers,
            held=True,
            prepared_s=preparation.seconds,
            gives_way=session.sampler_gives_way,
        )
        with stop_signals() as stopped:
            try:
                if outcome.front and outcome.ended in ENDED_WHOLE:
                    say("front: scoring its members on the test images, and timing them again in a fresh process")
                    looks = FrontLooks(folder, session, stopped)
                    looks.score(outcome.front)
                    looks.draw(outcome.front, say)
                    if looks.picture(outcome.front):
                        # A database that is gone by now costs these files, which the next look at the study adds.
                        with contextlib.suppress(ScalesearchError), opened_study(folder) as opened:
                            annotate_missing(
                                opened.study,
                                outcome.records,
                                folder,
                                samplers=samplers,
                                task=settings.task,
                            )
            except ChildStopped:
                outcome = replace(outcome, ended="interrupted", message="stopped while the front was looked at")
            if outcome.ended in ENDED_WHOLE:
                exports.clear()
            keeper.write(outcome.records, outcome.front)
        return outcome


def tune_parent(session: Session, say: Callable[[str], None] = lambda _: None) -> tuple[str, ...]:
    """Fine-tune the study's parent in a process of its own if that was not done before; return lines on the result.

    Raises:
        StageFailed: The process died.
    """
    if session.parent is None:
        return ()
    if line := tuning_ahead(session):
        say(line)
    try:
        return run_apart(tuned_apart, session, log=session.folder / "logs" / "parent.log")
    except ChildLost as lost:
        raise StageFailed(stage="parent", reason=f"fine-tuning the parent failed: {lost}") from lost


def clear_leftovers(folder: Path, say: Callable[[str], None]) -> None:
    """Remove half-written files of a killed run, and rename folders that have the names of the study's files.

    Call it only while holding the folder.
    """
    remove_partial_files(folder)
    (folder / ".writable").unlink(missing_ok=True)
    belong = (
        *(path for path in (folder / "models").glob("trial_*") if trial_of_model(path) is not None),
        *(folder / "records").glob("[0-9]*.json"),
    )
    for path in belong:
        if path.is_dir():
            number = 1
            while (aside := path.with_name(f"{path.name}.moved{number}")).exists():
                number += 1
            path.rename(aside)
            say(f"warning: {path} is a folder where a file of the study belongs: moved to {aside.name}")
