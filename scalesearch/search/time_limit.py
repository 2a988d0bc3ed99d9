"""The time limit of a run: when no further candidate is begun."""

import math
import statistics
import time
from collections.abc import Callable, Iterable

from scalesearch.values.record import TrialRecord


class TimeLimit:
    """Tells whether one more candidate can be expected to end before the run's time is up.

    A candidate is expected to take the median time of those of its kind in the study: trained ones, or ones that cost
    no training, as siblings do. Candidates that are running when the time is up are finished, so no work is lost.
    """

    def __init__(self, max_time_s: float, *, spent_s: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        """Start the clock; with a limit of 0 seconds the time is never up.

        Args:
            max_time_s: The limit.
            spent_s: How much of it is over already.
            now: Tells the time in seconds.
        """
        self._max_time_s, self._now = max_time_s, now
        self.spent_s = spent_s
        """Seconds of the limit that were over when the clock started."""
        self._began_s = now() - spent_s

    @property
    def is_set(self) -> bool:
        """Whether there is a limit."""
        return self._max_time_s > 0

    @property
    def left_s(self) -> float:
        """Seconds until the time is up; infinite without a limit."""
        return self._began_s + self._max_time_s - self._now() if self._max_time_s else math.inf

    @property
    def half_over(self) -> bool:
        """Whether half of the time is over; never without a limit."""
        return self.left_s < self._max_time_s / 2

    def is_up(self, records: Iterable[TrialRecord], *, trained: bool) -> bool:
        """Tell whether one more candidate would end too late.

        Args:
            records: All trials so far. Without any of the kind, a candidate is expected to take 0 s.
            trained: Whether the candidate is probably trained.
        """
        if not self._max_time_s:
            return False
        alike = [record for record in records if record.stages and record.charged == trained]
        spent_s = [sum(stage.seconds for stage in record.stages) for record in alike]
        usual_s = statistics.median(spent_s) if spent_s else 0.0
        return self._now() - self._began_s + usual_s > self._max_time_s
