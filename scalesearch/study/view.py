"""A study's folder, read for use in a notebook: records, front, table and picture. Loads neither torch nor Optuna."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.analysis.choice import Choice, Wish, choose
from scalesearch.analysis.confirmation import Confirmation, added_trials, confirm_moves
from scalesearch.analysis.confirmed_lengths import of_one_length
from scalesearch.analysis.front import Point, hypervolume, knee, pareto_front, point, reference_of
from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.records.confirmed import read_confirmed
from scalesearch.records.front_scores import read_front_scores
from scalesearch.records.run_file import read_run_file
from scalesearch.records.store import RecordStore
from scalesearch.study.metric import study_metric
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import FrontScore, MeasuredTrial, TrialRecord
from scalesearch.values.session import Session

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """What a study's folder held when it was read."""

    folder: Path
    session: Session | None
    """The session that the study was run with; None where run.toml is missing."""
    records: tuple[TrialRecord, ...]
    """All records, by trial number."""
    front: tuple[MeasuredTrial, ...]
    """The Pareto front, fastest first."""
    scores: tuple[FrontScore, ...]
    """Second evaluations of front members, on the test images."""
    confirmed: tuple[ConfirmedRun, ...]
    """The full-length trainings, if the study was confirmed."""

    def record(self, trial: int) -> TrialRecord:
        """Return the record of that trial.

        Raises:
            ConfigError: There is no such trial.
        """
        found = next((record for record in self.records if record.trial == trial), None)
        if found is None:
            message = f"no trial {trial} in {self.folder}: it has {len(self.records)} records."
            raise ConfigError(message)
        return found

    @property
    def knee(self) -> MeasuredTrial | None:
        """The front member at the knee, the best trade of score for latency; None without a front."""
        return knee(self.front)

    def pick(self, wish: Wish | None = None) -> Choice:
        """Choose the front member that the wish asks for (default: the knee), with its neighbours and ties.

        Raises:
            NoFeasibleTrialError: No member is within the wish's bounds.
        """
        wish = wish or Wish()
        if not any(wish.allows(record) for record in self.front):
            message = f"none of the {len(self.front)} front members of {self.folder} is within the bounds of {wish}."
            raise NoFeasibleTrialError(message)
        return choose(self.front, wish)

    def hypervolume(self, reference: Point | None = None) -> float:
        """Return the area that the front dominates: score times ln(latency), up to (score, ms) of `reference`.

        The default is (0, 1000); where a feasible network takes more than half a second, it is twice the slowest
        latency.
        """
        return hypervolume(map(point, self.front), reference or reference_of(self.records))

    def frame(self, *, front_only: bool = False) -> "pd.DataFrame":
        """Return a row for each record with the columns of trials.csv, by trial; or the front's rows, fastest first."""
        import pandas as pd  # takes 0.4 s, so it is imported only once a table is asked for

        from scalesearch.records.tables import front_rows, trial_rows

        members = {record.trial for record in self.front}
        metric = study_metric(self.records, self.session)
        rows = trial_rows(self.records, front=members, scores=self.scores, metric=metric)
        frame = pd.DataFrame(front_rows(rows) if front_only else rows, columns=list(rows[0]) if rows else None)
        return frame.set_index("trial") if rows else frame

    def plot(self, *, title: str = "") -> "Figure":
        """Draw the picture of front.png as a matplotlib figure: a notebook shows it, `figure.savefig` writes it.

        Raises:
            NoFeasibleTrialError: No trial was measured, so there is nothing to draw.
        """
        from scalesearch.views.front_picture import front_picture

        balance, session = self.knee, self.session
        return front_picture(
            self.records,
            front={record.trial for record in self.front},
            title=title or self.folder.resolve().name,
            caption=f"{session.data_words}, {session.data.val_images} validation images" if session else "",
            knee=balance.trial if balance else None,
        )


def read_study(folder: Path | str) -> StudyView:
    """Read the study in `folder` as it is now; read it again to see the progress of a run.

    Raises:
        ConfigError: There is no such folder, it holds no records, or one of its files cannot be read.
    """
    folder = Path(folder)
    records = RecordStore(folder).all()
    if not records:
        what = "has no records (yet)" if folder.is_dir() else "is no folder"
        message = f"{folder} {what}: expected a study, as `run_search` and `scalesearch run` make it."
        raise ConfigError(message)
    return StudyView(
        folder=folder,
        session=read_run_file(folder),
        records=records,
        front=pareto_front(records),
        scores=read_front_scores(folder),
        confirmed=read_confirmed(folder),
    )


def stored_confirmation(
    folder: Path,
    front: Sequence[MeasuredTrial],
    records: Sequence[TrialRecord],
    scores: Sequence[FrontScore] = (),
) -> Confirmation | None:
    """Return the confirmation of front members and other trials; None where no member of the front was confirmed.

    Runs of one length are compared (`of_one_length`); `left_out` holds the others.

    Args:
        folder: The study's folder.
        front: The searched front.
        records: All trials of the study.
        scores: Test scores of the search's own files.

    Raises:
        ConfigError: One of the files cannot be read.
    """
    alike = of_one_length(read_confirmed(folder), records, front)
    runs, members = alike.runs, {record.trial for record in front}
    if not any(run.trial in members for run in runs):
        return None
    return confirm_moves(front, runs, scores, added=added_trials(front, records, runs), left_out=alike.left_out)
