"""A whole search as one call: session, study, tables, pictures, and the last look at the front."""

import concurrent.futures
import functools
import logging
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.chain.planner import Planner
from scalesearch.deployment.export_cache import ExportCache
from scalesearch.errors import ScalesearchError
from scalesearch.records.front_scores import read_front_scores, write_front_scores
from scalesearch.records.plots import draw_front
from scalesearch.records.store import RecordStore
from scalesearch.records.tables import write_tables
from scalesearch.search.dashboard import installed, keep_histograms, stored_histograms
from scalesearch.search.events import Event, StudyOutcome, TrialFinished
from scalesearch.search.front import knee, pareto_front
from scalesearch.search.study import run_study
from scalesearch.session import open_session
from scalesearch.trial_files import restore_model, trial_histograms
from scalesearch.values.histogram import LayerHistogram
from scalesearch.values.record import FrontScore, TrialRecord
from scalesearch.values.session import Session, model_path
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
) -> StudyOutcome:
    """The outcome of a search in `folder`, begun or continued, with its tables, pictures and models written.

    Raises:
        ConfigError: something given is wrong, or the study there was made from other things.
        MissingBackendError: the target's backend is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
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
    )
    if outcome.front and outcome.ended in ("budget", "exhausted"):
        say("front: scoring its members on the test images, and timing them again in a fresh process")
        keeper.score_front(outcome.front)
        keeper.look_at_front(outcome.front, say)
    if outcome.ended in ("budget", "exhausted"):
        exports.clear()
    keeper.write(outcome.records, outcome.front)
    return outcome


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
            # A name ending in .fp32.onnx belongs to a trial that is under way.
            if path.name not in kept and int(path.name[6:12]) in self._records:
                path.unlink(missing_ok=True)

    def _caption(self) -> str:
        data = self._session.data
        return f"{self._session.data_words}, {data.val_images} validation images"

    def score_front(self, front: Sequence[TrialRecord]) -> None:
        """Test scores of front members that have none yet; the test images are touched here and nowhere else."""
        done = {score.trial: score for score in read_front_scores(self._session.folder)}
        missing = [record for record in front if record.trial not in done]
        scores = _apart(_score_all, self._session, missing, task="be scored on the test images")
        if scores is not None:
            write_front_scores(self._session.folder, [*done.values(), *scores])

    def look_at_front(self, front: Sequence[TrialRecord], say: Callable[[str], None]) -> None:
        """Histograms of front members that have none yet, for report and dashboard; nothing without that extra."""
        if not installed():
            return
        done = stored_histograms(self._session.folder)
        missing = [record for record in front if record.trial not in done]
        if missing:
            say("front: looking at the weights and activations of its members")
            layers = _apart(_histograms_of_all, self._session, missing, task="be looked at") or {}
            keep_histograms(self._session.folder, layers)


def _apart(
    work: Callable[[Session, Sequence[TrialRecord]], _Found],
    session: Session,
    front: Sequence[TrialRecord],
    *,
    task: str,
) -> _Found | None:
    """What `work` gives in a fresh process, all that a crash of native code costs; None, logged, if it fails."""
    context = multiprocessing.get_context("spawn")
    try:
        with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            return pool.submit(work, session, front).result() if front else None
    except (ScalesearchError, concurrent.futures.BrokenExecutor) as error:
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
