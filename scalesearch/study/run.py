"""A whole search as one call: session, study, tables, pictures, and the second evaluation of the front."""

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from scalesearch.analysis.front import knee, pareto_front
from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.chain.inheritance import tuned_apart
from scalesearch.chain.planner import Planner
from scalesearch.dashboard.publisher import DashboardListener, installed, keep_histograms, stored_histograms
from scalesearch.data import LABELS
from scalesearch.deployment.export_cache import ExportCache
from scalesearch.errors import ScalesearchError, StageFailed
from scalesearch.execution.child_process import ChildLost, ChildStopped, run_apart
from scalesearch.execution.stopping import interrupted_by_sigterm, stop_signals
from scalesearch.export.trial_files import restore_model, trial_histograms
from scalesearch.files import remove_partial_files
from scalesearch.folder_lock import FolderHold, hold_folder
from scalesearch.records.front_scores import read_front_scores, write_front_scores
from scalesearch.records.pictures import picture_path
from scalesearch.records.store import RecordStore
from scalesearch.records.tables import write_tables
from scalesearch.search.coordinator import Problem, run_study
from scalesearch.search.events import Event, StudyOutcome, TrialFinished
from scalesearch.search.showing import Watchers
from scalesearch.study.pictures import picture_front
from scalesearch.study.session import open_session
from scalesearch.tasks.registry import get_task
from scalesearch.values.histogram import LayerHistogram
from scalesearch.values.record import FrontScore, MeasuredTrial, TrialRecord
from scalesearch.values.session import Session, model_path, trial_of_model
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace
from scalesearch.views.front_picture import draw_front

_logger = logging.getLogger(__name__)
_Found = TypeVar("_Found")


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

    The folder is held from before the first write to the last one; `hold` is that of a caller who holds it already.
    Ctrl-C and SIGTERM end the search cleanly: as KeyboardInterrupt before it begins, as `outcome.ended` from then on.

    Raises:
        ConfigError: Something given is wrong, the study there was made with other settings, or another process works on
            it.
        MissingBackendError: The target's backend is not installed.
    """
    with hold_folder(folder, "run", held=hold), interrupted_by_sigterm():
        clear_leftovers(folder, say)
        session = open_session(settings, space, folder, say=say)
        for warning in session.data.warnings:
            say(f"warning: {warning}")
        for line in tune_parent(session, say):
            say(line)
        keeper, exports = _Keeper(session), ExportCache(folder)

        def heard(event: Event) -> None:
            if isinstance(event, TrialFinished):
                keeper.keep(event.record)
            on_event(event)

        problem = Problem(
            space=session.space,
            plan=Planner(session),
            make_evaluator=functools.partial(TrialEvaluator, session, exports=exports),
            metric=get_task(settings.task).metric,
        )
        watchers = Watchers(on_event=heard, listener=DashboardListener(folder, session.space, settings.sampler))
        outcome = run_study(folder, problem, settings, watchers=watchers, held=True)
        with stop_signals() as stopped:
            try:
                if outcome.front and outcome.ended in ("budget", "exhausted"):
                    say("front: scoring its members on the test images, and timing them again in a fresh process")
                    keeper.score_front(outcome.front, stopped)
                    keeper.look_at_front(outcome.front, say, stopped)
                    keeper.picture_front(outcome.front, stopped)
            except ChildStopped:
                outcome = replace(outcome, ended="interrupted", message="stopped while the front was looked at")
            if outcome.ended in ("budget", "exhausted"):
                exports.clear()
            keeper.write(outcome.records, outcome.front)
        return outcome


def tune_parent(session: Session, say: Callable[[str], None] = lambda _: None) -> tuple[str, ...]:
    """Fine-tune the study's parent in a process of its own, unless that is done; return lines on how it went.

    Raises:
        StageFailed: The process died.
    """
    if session.parent is None:
        return ()
    if session.parent.steps:
        say(f"parent: fine-tuning it by {session.parent.steps} updates, once for the whole study")
    try:
        return run_apart(tuned_apart, session, log=session.folder / "logs" / "parent.log")
    except ChildLost as lost:
        raise StageFailed(stage="parent", reason=f"fine-tuning the parent failed: {lost}") from lost


def clear_leftovers(folder: Path, say: Callable[[str], None]) -> None:
    """Remove what a killed run left half written, and rename folders that stand where files of the study belong.

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


class _Keeper:
    """Updates the study's folder after every trial: tables, picture, and models of front members only."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._drawn: set[int] = set()
        self._records = {record.trial: record for record in RecordStore(session.folder).all()}

    def keep(self, record: TrialRecord) -> None:
        self._records[record.trial] = record
        records = tuple(self._records.values())
        self.write(records, pareto_front(records))

    def write(self, records: Sequence[TrialRecord], front: Sequence[MeasuredTrial]) -> None:
        folder = self._session.folder
        members = {record.trial for record in front}
        write_tables(folder, records, front=members, scores=read_front_scores(folder))
        # A picture takes half a second, so it is drawn only when there is something new to see.
        if members and members != self._drawn:
            balance = knee(front)
            draw_front(
                records,
                front=members,
                to=folder / "front.png",
                title="Deployed accuracy against measured latency",
                caption=self._caption(),
                knee=balance.trial if balance else None,
            )
            self._drawn = members
        kept = {model_path(folder, trial).name for trial in members}
        for path in (folder / "models").glob("trial_*.onnx"):
            # The models of a trial without a record belong to one that is in progress.
            if path.name not in kept and trial_of_model(path) in self._records and not path.is_dir():
                path.unlink(missing_ok=True)

    def _caption(self) -> str:
        data = self._session.data
        return f"{self._session.data_words}, {data.val_images} validation images"

    def score_front(self, front: Sequence[MeasuredTrial], stopped: threading.Event) -> None:
        """Score the front members that have no test scores yet. The test images are used here and nowhere else."""
        done = {score.trial: score for score in read_front_scores(self._session.folder)}
        missing = [record for record in front if record.trial not in done]
        scores = _apart(_score_all, self._session, missing, stopped, task="be scored on the test images")
        if scores is not None:
            write_front_scores(self._session.folder, [*done.values(), *scores])

    def look_at_front(
        self, front: Sequence[MeasuredTrial], say: Callable[[str], None], stopped: threading.Event
    ) -> None:
        """Make the missing histograms of front members for report and dashboard; do nothing without that extra."""
        if not installed():
            return
        done = stored_histograms(self._session.folder)
        missing = [record for record in front if record.trial not in done]
        if missing:
            say("front: looking at the weights and activations of its members")
            layers = _apart(_histograms_of_all, self._session, missing, stopped, task="be looked at") or {}
            keep_histograms(self._session.folder, layers, held=True)

    def picture_front(self, front: Sequence[MeasuredTrial], stopped: threading.Event) -> None:
        """Draw validation images with the answers of front members, for the report; not for a class an image."""
        folder = self._session.folder
        missing = [record for record in front if not picture_path(folder, record.trial).exists()]
        if get_task(self._session.settings.task).targets != LABELS and missing:
            _apart(picture_front, self._session, missing, stopped, task="be drawn on validation images")


def _apart(
    work: Callable[[Session, Sequence[MeasuredTrial]], _Found],
    session: Session,
    front: Sequence[MeasuredTrial],
    stopped: threading.Event,
    *,
    task: str,
) -> _Found | None:
    """Return the result of `work`, done in a fresh process; None, with a log entry, if it fails.

    If native code crashes, only that process is lost.

    Raises:
        ChildStopped: `stopped` was set.
    """
    try:
        log = session.folder / "logs" / "front.log"
        return run_apart(work, session, front, log=log, stopped=stopped) if front else None
    except (ScalesearchError, ChildLost) as error:
        _logger.warning("the front could not %s: %s", task, error)
        return None


def _score_all(session: Session, front: Sequence[MeasuredTrial]) -> tuple[FrontScore, ...]:
    evaluator, scores = TrialEvaluator(session), list[FrontScore]()
    for record in front:
        try:
            restore_model(record, session, evaluator)
            scores.append(evaluator.score_on_test(record))
        except ScalesearchError as error:  # the others are still scored
            _logger.warning("trial %d could not be scored on the test images: %s", record.trial, error)
    return tuple(scores)


def _histograms_of_all(session: Session, front: Sequence[MeasuredTrial]) -> dict[int, tuple[LayerHistogram, ...]]:
    evaluator = TrialEvaluator(session, exports=ExportCache(session.folder))
    return {record.trial: trial_histograms(record, session, evaluator=evaluator) for record in front}
