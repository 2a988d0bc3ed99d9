"""Evaluate a finished front once more: test scores, histograms of weights and activations, and pictures."""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.dashboard.publisher import installed, keep_histograms, stored_histograms
from scalesearch.data import LABELS
from scalesearch.deployment.export_cache import ExportCache
from scalesearch.errors import ScalesearchError
from scalesearch.execution.child_process import ChildLost, run_apart
from scalesearch.export.trial_files import restore_model, trial_histograms
from scalesearch.records.front_scores import read_front_scores, write_front_scores
from scalesearch.records.stored_files import picture_path
from scalesearch.study.pictures import picture_front
from scalesearch.tasks.registry import task_for
from scalesearch.values.histogram import LayerHistogram
from scalesearch.values.record import FrontScore, MeasuredTrial
from scalesearch.values.session import Session

_logger = logging.getLogger(__name__)

_Found = TypeVar("_Found")


class FrontLooks:
    """Evaluates the members of a front in processes of their own, since native code builds their engines.

    Args:
        folder: The study's folder, in which the results are kept.
        session: The study.
        stopped: Set when the run is to end.
    """

    def __init__(self, folder: Path, session: Session, stopped: threading.Event) -> None:
        self._folder, self._session, self._stopped = folder, session, stopped

    def score(self, front: Sequence[MeasuredTrial]) -> None:
        """Score the front members that have no test scores yet. The test images are used here and nowhere else."""
        done = {score.trial: score for score in read_front_scores(self._folder)}
        missing = [record for record in front if record.trial not in done]
        scores = self._apart(_score_all, missing, task="be scored on the test images")
        if scores is not None:
            write_front_scores(self._folder, [*done.values(), *scores])

    def draw(self, front: Sequence[MeasuredTrial], say: Callable[[str], None]) -> None:
        """Make the missing histograms of front members for report and dashboard, if its extra is installed."""
        if not installed():
            return
        try:
            done = stored_histograms(self._folder)
        except ScalesearchError as error:  # locked, or its server went away: the study is complete without them
            _logger.warning("histograms of the front were not made: %s", error)
            return
        missing = [record for record in front if record.trial not in done]
        if missing:
            say("front: looking at the weights and activations of its members")
            layers = self._apart(_histograms_of_all, missing, task="be looked at") or {}
            keep_histograms(self._folder, layers, held=True)

    def picture(self, front: Sequence[MeasuredTrial]) -> bool:
        """Draw validation images with the answers of front members, for report and dashboard.

        Returns:
            Whether anything was to be drawn; for classification nothing is.
        """
        missing = [record for record in front if not picture_path(self._folder, record.trial).exists()]
        if not missing or task_for(self._session.settings).targets == LABELS:
            return False
        self._apart(picture_front, missing, task="be drawn on validation images")
        return True

    def _apart(
        self, work: Callable[[Session, Sequence[MeasuredTrial]], _Found], front: Sequence[MeasuredTrial], *, task: str
    ) -> _Found | None:
        """Return the result of `work`, done in a fresh process; None, with a log entry, if it fails in any way.

        If native code crashes, only that process is lost. The search is over, and its results must not be.

        Raises:
            ChildStopped: The run is to end.
        """
        try:
            log = self._folder / "logs" / "front.log"
            return run_apart(work, self._session, front, log=log, stopped=self._stopped) if front else None
        except (ScalesearchError, ChildLost) as error:
            reason = str(error)
        except RuntimeError as error:  # any other exception there: no memory, a full disk; the log has its traceback
            reason = str(error).strip().rpartition("\n")[2]
        _logger.warning("the front could not %s: %s", task, reason)
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
