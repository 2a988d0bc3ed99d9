"""Decide when a latency is known well enough to end its measurement."""

import math
from dataclasses import dataclass

from scalesearch.measurement.duet import Verdict
from scalesearch.values.settings import LatencySettings

WORTH_GOING_ON = 1 / 3
"""A brief measurement goes on only if the remaining time can be expected to narrow the whole interval by this share.
Differences between processes cannot be narrowed, so half of the usual time brings most of the exactness."""
HOPE_OF_CALM = 0.5
"""A brief measurement ends after this share of `max_s` if too few pairs were calm until then and the estimated ratio is
above the bounds."""


@dataclass(slots=True, kw_only=True)
class Ends:
    """Decides when enough pairs of a duet were timed."""

    settings: LatencySettings
    bounds: tuple[float, float] = (0.0, math.inf)
    """Bounds of the ratio; one that is surely outside need not be known exactly."""
    brief: bool = False
    """Whether to end also when the remaining time would hardly make the ratio more exact."""
    coarse: bool = False
    """Whether the duet ended early because its ratio is surely out of bounds."""

    def enough(self, verdict: Verdict, spent_s: float) -> bool:
        """Tell whether the ratio is known well enough after `spent_s` seconds of timing."""
        settings = self.settings
        if verdict.session_half_width <= settings.half_width:
            return True
        near_enough = verdict.session_half_width <= settings.coarse_half_width or spent_s >= settings.max_s / 4
        low, high = self.bounds
        outside = verdict.high < low or verdict.low > high
        self.coarse = bool(settings.coarse_half_width) and near_enough and outside
        return self.coarse or (self.brief and self._is_vain(verdict, spent_s))

    def _is_vain(self, verdict: Verdict, spent_s: float) -> bool:
        """Tell whether the time that remains after `spent_s` seconds would hardly make the ratio more exact."""
        settings, share = self.settings, spent_s / self.settings.max_s
        if not verdict.enough_calm:
            return share >= HOPE_OF_CALM and verdict.ratio > self.bounds[1]
        at_the_end = verdict.half_width_after(1 / share)
        return verdict.stable(settings.stable_within) and at_the_end > (1 - WORTH_GOING_ON) * verdict.half_width
