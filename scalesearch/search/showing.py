"""Report the progress of a search: events for the caller, calls for the listener."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import optuna

from scalesearch.analysis.front import Point, hypervolume, point, reference_beyond, reference_of
from scalesearch.search.events import Event, Plateau, RunStarted, TrialFinished
from scalesearch.search.ledger import Ledger
from scalesearch.search.listener import NoListener, StudyListener
from scalesearch.values.quality import DEFAULT_METRIC
from scalesearch.values.record import TrialRecord
from scalesearch.values.settings import RunSettings

STATISTICS_EVERY = 10
"""Number of trials between two updates of the dashboard's statistics. With many trials it is larger, since the update
then takes longer."""


PLATEAU_CANDIDATES = 20
PLATEAU_GROWTH = 0.002
"""A front is on a plateau if its hypervolume grew by less than this fraction with the last `PLATEAU_CANDIDATES` trained
candidates, of any length."""
PLATEAU_IN_FULL = 2
"""At least so many of them must have been trained in full length: the others cannot enlarge the front."""


def _nobody(_: Event) -> None:
    """Ignore the event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watchers:
    """The two receivers of news during a search: a callback, and a listener that may write into the study."""

    on_event: Callable[[Event], None] = _nobody
    """Is called with each event."""
    listener: StudyListener = field(default_factory=NoListener)
    """Shows the study to others, for example in the dashboard."""


class PlateauWatch:
    """Notices when a front has stopped growing."""

    def __init__(self) -> None:
        """Begin before the run's first candidate."""
        self._fronts: deque[tuple[Point, ...]] = deque(maxlen=PLATEAU_CANDIDATES + 1)
        self._short: deque[bool] = deque(maxlen=PLATEAU_CANDIDATES)
        self._told = False

    def after(self, front: Iterable[Point], *, short: bool = False) -> Plateau | None:
        """Take in one more trained candidate, and return an event if the front has now come to a plateau.

        Nothing is told before the front has had a member for `PLATEAU_CANDIDATES` candidates.

        Args:
            front: The front with that candidate.
            short: Whether the candidate was trained in part, so that it is no member of any front.
        """
        self._fronts.append(tuple(front))
        self._short.append(short)
        if len(self._fronts) <= PLATEAU_CANDIDATES:
            return None
        slowest_ms = max((p50_ms for _, p50_ms in (*self._fronts[0], *self._fronts[-1])), default=0.0)
        worst = reference_beyond(slowest_ms)
        before, after = hypervolume(self._fronts[0], worst), hypervolume(self._fronts[-1], worst)
        if not before:
            return None
        growth, in_part = after / before - 1, sum(self._short)
        enough = PLATEAU_CANDIDATES - in_part >= PLATEAU_IN_FULL
        known, self._told = self._told, growth < PLATEAU_GROWTH and (enough or self._told)
        if known or not self._told:
            return None
        return Plateau(candidates=PLATEAU_CANDIDATES, in_part=in_part, growth=growth)


class Showing:
    """Shows one study to its watchers, and remembers which front they have seen."""

    def __init__(
        self,
        watchers: Watchers,
        study: optuna.Study,
        ledger: Ledger,
        settings: RunSettings,
        *,
        metric: str = DEFAULT_METRIC,
    ) -> None:
        """Begin before anything was shown; `metric` is the name of the study's score."""
        self._watchers, self._study, self._ledger, self._settings = watchers, study, ledger, settings
        self._metric = metric
        self._plateau = PlateauWatch()
        self._figure: set[int] | None = None  # front members that the dashboard's figure shows; None before the first

    def opened(self, front: Sequence[TrialRecord]) -> None:
        """Show what the dashboard may lack after a run was killed or the database was deleted."""
        self._watchers.listener.study_opened(self._study)
        if self._ledger.records:
            self._show_front(front)

    def started(self, *, continued: int, prepared_s: float = 0.0) -> None:
        """Report that the run begins, how many trials of a killed run it continues, and how long it prepared."""
        done, records = self._ledger.charged, len(self._ledger.records)
        event = RunStarted(
            budget=self._settings.budget,
            charged_done=done,
            records=records,
            continued=continued,
            max_time_s=self._settings.max_time_s,
            prepared_s=prepared_s,
        )
        self.tell((event,))

    def finished(self, record: TrialRecord, front: Sequence[TrialRecord]) -> None:
        """Show the study with this new record."""
        self._show_front(front)
        count = len(self._ledger.records)
        if count % max(STATISTICS_EVERY, count // STATISTICS_EVERY) == 0:
            self.statistics()
        event = TrialFinished(
            record=record,
            on_front=any(member.trial == record.trial for member in front),
            metric=self._metric,
            charged_done=self._ledger.charged,
            budget=self._settings.budget,
            front_size=len(front),
            hypervolume=hypervolume(map(point, front), reference_of(self._ledger.records.values())),
        )
        plateau = self._plateau.after(map(point, front), short=record.short) if record.charged else None
        self.tell(filter(None, (event, plateau)))

    def statistics(self) -> None:
        """Have the figures over all records drawn again."""
        self._watchers.listener.statistics_due(self._study, self._ledger.records.values())

    def tell(self, events: Iterable[Event]) -> None:
        """Pass the events on to the caller of the run."""
        for event in events:
            self._watchers.on_event(event)

    def _show_front(self, front: Sequence[TrialRecord]) -> None:
        members = {member.trial for member in front}
        if members != self._figure:
            self._figure = members
            self._watchers.listener.front_changed(self._study, self._ledger.records.values())
