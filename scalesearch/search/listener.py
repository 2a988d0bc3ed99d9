"""The interface of listeners that show the progress of a search in its Optuna study, such as the dashboard."""

from collections.abc import Iterable
from typing import Protocol

import optuna

from scalesearch.values.record import TrialRecord


class StudyListener(Protocol):
    """Is called by the coordinator between its own steps, and may write notes and figures into the study."""

    def study_opened(self, study: optuna.Study) -> None:
        """React to the start of a run, new or continued."""

    def trial_recorded(self, study: optuna.Study, trial: optuna.Trial, record: TrialRecord) -> None:
        """React to a trial's record being on disk. Optuna is told its values after this call."""

    def front_changed(self, study: optuna.Study, records: Iterable[TrialRecord]) -> None:
        """React to the front of all records having other members than before."""

    def statistics_due(self, study: optuna.Study, records: Iterable[TrialRecord]) -> None:
        """React to enough trials having ended since the last call: redraw the figures over all of them."""


class NoListener:
    """A listener that does nothing."""

    def study_opened(self, study: optuna.Study) -> None:
        """Do nothing."""

    def trial_recorded(self, study: optuna.Study, trial: optuna.Trial, record: TrialRecord) -> None:
        """Do nothing."""

    def front_changed(self, study: optuna.Study, records: Iterable[TrialRecord]) -> None:
        """Do nothing."""

    def statistics_due(self, study: optuna.Study, records: Iterable[TrialRecord]) -> None:
        """Do nothing."""
