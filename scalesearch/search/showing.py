"""Tells those who watch a search what has happened: events for the caller, calls for the listener."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import optuna

from scalesearch.analysis.front import hypervolume, point
from scalesearch.search.events import Event, RunStarted, TrialFinished
from scalesearch.search.ledger import Ledger
from scalesearch.search.listener import NoListener, StudyListener
from scalesearch.values.record import TrialRecord

STATISTICS_EVERY = 10
"""Number of trials between two updates of the dashboard's statistics. With many trials it is larger, since the update
then takes longer."""


def _nobody(_: Event) -> None:
    """Ignore the event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watchers:
    """The two receivers of news during a search: a callback, and a listener that may write into the study."""

    on_event: Callable[[Event], None] = _nobody
    """Is called with each event."""
    listener: StudyListener = field(default_factory=NoListener)
    """Shows the study to others, for example in the dashboard."""


class Showing:
    """Shows one study to its watchers, and remembers which front they have seen."""

    def __init__(self, watchers: Watchers, study: optuna.Study, ledger: Ledger, *, budget: int) -> None:
        """Begin before anything was shown."""
        self._watchers, self._study, self._ledger, self._budget = watchers, study, ledger, budget
        self._figure: set[int] = set()  # front members that the dashboard's figure shows

    def opened(self, front: Sequence[TrialRecord]) -> None:
        """Show what the dashboard lacks: after a kill, or in a database that was deleted."""
        self._watchers.listener.study_opened(self._study)
        if self._ledger.records:
            self._show_front(front)

    def started(self, *, continued: int) -> None:
        """Tell that the run begins, and how many trials of a killed run it continues."""
        done, records = self._ledger.charged, len(self._ledger.records)
        self.tell((RunStarted(budget=self._budget, charged_done=done, records=records, continued=continued),))

    def finished(self, record: TrialRecord, front: Sequence[TrialRecord]) -> None:
        """Show the study as it is with this record."""
        self._show_front(front)
        count = len(self._ledger.records)
        if count % max(STATISTICS_EVERY, count // STATISTICS_EVERY) == 0:
            self.statistics()
        event = TrialFinished(
            record=record,
            charged_done=self._ledger.charged,
            budget=self._budget,
            front_size=len(front),
            hypervolume=hypervolume(point(member) for member in front),
        )
        self.tell((event,))

    def statistics(self) -> None:
        """Have the figures over all records drawn again."""
        self._watchers.listener.statistics_due(self._study, self._ledger.records.values())

    def tell(self, events: Iterable[Event]) -> None:
        """Pass the events on to the caller of the run."""
        for event in events:
            self._watchers.on_event(event)

    def _show_front(self, front: Sequence[TrialRecord]) -> None:
        members = {member.trial for member in front}
        if members and members != self._figure:
            self._figure = members
            self._watchers.listener.front_changed(self._study, self._ledger.records.values())
