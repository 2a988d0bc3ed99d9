"""Keep a study's folder up to date after every trial: tables, picture, and models of front members only."""

from collections.abc import Sequence
from pathlib import Path

from scalesearch.analysis.front import knee, pareto_front
from scalesearch.records.front_scores import read_front_scores
from scalesearch.records.store import RecordStore
from scalesearch.records.tables import write_tables
from scalesearch.values.quality import DEFAULT_METRIC
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.session import model_path, trial_of_model
from scalesearch.views.front_picture import draw_front
from scalesearch.views.words import score_noun_of


class Keeper:
    """Updates a study's folder after every trial.

    Args:
        folder: The study's folder.
        caption: Text under the picture of the front.
        metric: Name of the study's score, for tables without one.
    """

    def __init__(self, folder: Path, caption: str, *, metric: str = DEFAULT_METRIC) -> None:
        self._folder, self._caption, self._metric = folder, caption, metric
        self._drawn: set[int] = set()  # front members in the picture
        self._seen: set[int] = set()  # all trials when it was drawn
        self._records = {record.trial: record for record in RecordStore(folder).all()}

    def keep(self, record: TrialRecord) -> None:
        """Add the record of a finished trial, and write tables and picture again."""
        self._records[record.trial] = record
        records = tuple(self._records.values())
        self._write(records, pareto_front(records), last=False)

    def write(self, records: Sequence[TrialRecord], front: Sequence[MeasuredTrial]) -> None:
        """Write tables and picture of all records, and remove the models of trials that are not in the front."""
        self._write(records, front, last=True)

    def _write(self, records: Sequence[TrialRecord], front: Sequence[MeasuredTrial], *, last: bool) -> None:
        folder = self._folder
        members = {record.trial for record in front}
        write_tables(folder, records, front=members, scores=read_front_scores(folder), metric=self._metric)
        # A picture takes half a second, so during the run it is drawn only when the front has other members.
        trials = {record.trial for record in records}
        if members and (members != self._drawn or (last and trials != self._seen)):
            balance = knee(front)
            draw_front(
                records,
                front=members,
                to=folder / "front.png",
                title=f"Deployed {score_noun_of(front)} against measured latency",
                caption=self._caption,
                knee=balance.trial if balance else None,
            )
            self._drawn, self._seen = members, trials
        elif not members:  # that of a study that was made longer, before
            (folder / "front.png").unlink(missing_ok=True)
        kept = {model_path(folder, trial).name for trial in members}
        for path in (folder / "models").glob("trial_*.onnx"):
            # The models of a trial without a record belong to one that is in progress.
            if path.name not in kept and trial_of_model(path) in self._records and not path.is_dir():
                path.unlink(missing_ok=True)
