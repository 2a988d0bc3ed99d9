"""A study's folder, read for use in a notebook: records, front, table and picture. Loads neither torch nor Optuna."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.records.confirmed import read_confirmed
from scalesearch.records.front_scores import read_front_scores
from scalesearch.records.run_file import read_run_file
from scalesearch.records.store import RecordStore
from scalesearch.search.choice import Choice, Wish, choose
from scalesearch.search.front import REFERENCE, Point, hypervolume, knee, pareto_front, point
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import FrontScore, TrialRecord
from scalesearch.values.session import Session

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """What a study's folder held when it was read."""

    folder: Path
    session: Session | None
    """What it was run with; None where run.toml is gone."""
    records: tuple[TrialRecord, ...]
    """By trial number."""
    front: tuple[TrialRecord, ...]
    """Fastest first."""
    scores: tuple[FrontScore, ...]
    """Of front members, on the test images."""
    confirmed: tuple[ConfirmedRun, ...]
    """Full trainings, if it was confirmed."""

    def record(self, trial: int) -> TrialRecord:
        """The record of that trial.

        Raises:
            ConfigError: There is none.
        """
        found = next((record for record in self.records if record.trial == trial), None)
        if found is None:
            message = f"no trial {trial} in {self.folder}: it has {len(self.records)} records."
            raise ConfigError(message)
        return found

    @property
    def knee(self) -> TrialRecord | None:
        """The best trade of accuracy for latency; None without a front."""
        return knee(self.front)

    def pick(self, wish: Wish | None = None) -> Choice:
        """The member that is wished for (default: the knee), its neighbours, and what cannot be told from it.

        Raises:
            NoFeasibleTrialError: No member is within the wish's bounds.
        """
        wish = wish or Wish()
        if not any(wish.allows(record) for record in self.front):
            message = f"none of the {len(self.front)} front members of {self.folder} is within the bounds of {wish}."
            raise NoFeasibleTrialError(message)
        return choose(self.front, wish)

    def hypervolume(self, reference: Point = REFERENCE) -> float:
        """The area that the front dominates: accuracy times ln(latency), up to (top-1, ms) of `reference`."""
        return hypervolume((point(record) for record in self.front), reference)

    def frame(self, *, front_only: bool = False) -> "pd.DataFrame":
        """A row for each record with the columns of trials.csv, by trial; or the front's rows, fastest first."""
        import pandas as pd  # 0.4 s, so only once a table is asked for

        from scalesearch.records.tables import front_rows, trial_rows

        rows = trial_rows(self.records, front={record.trial for record in self.front}, scores=self.scores)
        frame = pd.DataFrame(front_rows(rows) if front_only else rows)
        return frame.set_index("trial") if len(frame) else frame

    def plot(self, *, title: str = "") -> "Figure":
        """The picture of front.png as a matplotlib figure: a notebook shows it, `figure.savefig` writes it.

        Raises:
            NoFeasibleTrialError: No trial was measured, so there is nothing to draw.
        """
        from scalesearch.records.plots import front_figure

        balance = self.knee
        return front_figure(
            self.records,
            front={record.trial for record in self.front},
            title=title or self.folder.resolve().name,
            caption=self.session.data.name if self.session else "",
            knee=balance.trial if balance else None,
        )


def read_study(folder: Path | str) -> StudyView:
    """The study in `folder`, as it is now: read it again to see a run go on.

    Raises:
        ConfigError: There is no such folder, it holds no records, or a file of it cannot be read.
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
