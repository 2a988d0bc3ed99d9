"""A whole search as one call: session, study, tables, pictures, and the last look at the front."""

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.chain.planner import Planner
from scalesearch.child_process import ChildLost, ChildStopped, run_apart
from scalesearch.deployment.export_cache import ExportCache
from scalesearch.errors import ScalesearchError
from scalesearch.files import remove_partial_files
from scalesearch.folder_lock import FolderHold, hold_folder
from scalesearch.records.front_scores import read_front_scores, write_front_scores
from scalesearch.records.plots import draw_front
from scalesearch.records.store import RecordStore
from scalesearch.records.tables import write_tables
from scalesearch.search.dashboard import installed, keep_histograms, stored_histograms
from scalesearch.search.events import Event, StudyOutcome, TrialFinished
from scalesearch.search.front import knee, pareto_front
from scalesearch.search.stopping import interrupted_by_sigterm, stop_signals
from scalesearch.search.study import run_study
from scalesearch.session import open_session
from scalesearch.trial_files import restore_model, trial_histograms
from scalesearch.values.histogram import LayerHistogram
from scalesearch.values.record import FrontScore, TrialRecord
from scalesearch.values.session import Session, model_path, trial_of_model
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace

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
    """The outcome of a search in `folder`, begun or continued, with its tables, pictures and models written.

    The folder is held from before the first write to the last one; `hold`: that of a caller who holds it already.
    Ctrl-C and SIGTERM end it cleanly: as KeyboardInterrupt before the search begins, as `outcome.ended` from then on.

    Raises:
        ConfigError: something given is wrong, the study there was made from other things, or another process works
            on it.
        MissingBackendError: the target's backend is not installed.
    """
    with hold_folder(folder, "run", held=hold), interrupted_by_sigterm():
        clear_leftovers(folder, say)
        session = open_session(settings, space, folder, say=say)
        for warning in session.data.warnings:
            say(f"warning: {warning}")
        keeper, exports = _Keeper(session), ExportCache(folder)

        def heard(event: Event) -> None:
            if isinstance(event, TrialFinished):
                keeper.keep(event.record)
            on_event(event)

        outcome = run_study(
            folder=folder,
            space=session.space,
            plan=Planner(session),
            make_evaluator=functools.partial(TrialEvaluator, session, exports=exports),
            settings=settings,
            on_event=heard,
            held=True,
        )
        with stop_signals() as stopped:
            try:
                if outcome.front and outcome.ended in ("budget", "exhausted"):
                    say("front: scoring its members on the test images, and timing them again in a fresh process")
                    keeper.score_front(outcome.front, stopped)
                    keeper.look_at_front(outcome.front, say, stopped)
            except ChildStopped:
                outcome = replace(outcome, ended="interrupted", message="stopped while the front was looked at")
            if outcome.ended in ("budget", "exhausted"):
                exports.clear()
            keeper.write(outcome.records, outcome.front)
        return outcome


def clear_leftovers(folder: Path, say: Callable[[str], None]) -> None:
    """Remove what a killed run left half written, and move folders away from where files of ours belong.

    Only for who holds the folder.
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
    """Keeps the study's folder true after every trial: tables, picture, and models of front members only."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._drawn: set[int] = set()
        self._records = {record.trial: record for record in RecordStore(session.folder).all()}

    def keep(self, record: TrialRecord) -> None:
        self._records[record.trial] = record
        records = tuple(self._records.values())
        self.write(records, pareto_front(records))

    def write(self, records: Sequence[TrialRecord], front: Sequence[TrialRecord]) -> None:
        folder = self._session.folder
        members = {record.trial for record in front}
        write_tables(folder, records, front=members, scores=read_front_scores(folder))
        # Half a second a picture: only when there is something new to see.
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
            # Those of a trial without a record belong to one that is under way.
            if path.name not in kept and trial_of_model(path) in self._records and not path.is_dir():
                path.unlink(missing_ok=True)

    def _caption(self) -> str:
        data = self._session.data
        return f"{self._session.data_words}, {data.val_images} validation images"

    def score_front(self, front: Sequence[TrialRecord], stopped: threading.Event) -> None:
        """Test scores of front members that have none yet; the test images are touched here and nowhere else."""
        done = {score.trial: score for score in read_front_scores(self._session.folder)}
        missing = [record for record in front if record.trial not in done]
        scores = _apart(_score_all, self._session, missing, stopped, task="be scored on the test images")
        if scores is not None:
            write_front_scores(self._session.folder, [*done.values(), *scores])

    def look_at_front(self, front: Sequence[TrialRecord], say: Callable[[str], None], stopped: threading.Event) -> None:
        """Histograms of front members that have none yet, for report and dashboard; nothing without that extra."""
        if not installed():
            return
        done = stored_histograms(self._session.folder)
        missing = [record for record in front if record.trial not in done]
        if missing:
            say("front: looking at the weights and activations of its members")
            layers = _apart(_histograms_of_all, self._session, missing, stopped, task="be looked at") or {}
            keep_histograms(self._session.folder, layers, held=True)


def _apart(
    work: Callable[[Session, Sequence[TrialRecord]], _Found],
    session: Session,
    front: Sequence[TrialRecord],
    stopped: threading.Event,
    *,
    task: str,
) -> _Found | None:
    """What `work` gives in a fresh process, all that a crash of native code costs; None, logged, if it fails.

    Raises:
        ChildStopped: `stopped` was set.
    """
    try:
        log = session.folder / "logs" / "front.log"
        return run_apart(work, session, front, log=log, stopped=stopped) if front else None
    except (ScalesearchError, ChildLost) as error:
        _logger.warning("the front could not %s: %s", task, error)
        return None


def _score_all(session: Session, front: Sequence[TrialRecord]) -> tuple[FrontScore, ...]:
    evaluator, scores = TrialEvaluator(session), list[FrontScore]()
    for record in front:
        try:
            restore_model(record, session, evaluator)
            scores.append(evaluator.score_on_test(record))
        except ScalesearchError as error:  # the others are scored all the same
            _logger.warning("trial %d could not be scored on the test images: %s", record.trial, error)
    return tuple(scores)


def _histograms_of_all(session: Session, front: Sequence[TrialRecord]) -> dict[int, tuple[LayerHistogram, ...]]:
    evaluator = TrialEvaluator(session, exports=ExportCache(session.folder))
    return {record.trial: trial_histograms(record, session, evaluator=evaluator) for record in front}
