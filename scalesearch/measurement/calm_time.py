"""Finds how fast an engine runs while nothing disturbs the machine."""

import numpy as np

from scalesearch.measurement.duet import Seconds
from scalesearch.measurement.latency import Move, TimedEngine, timed, warm_up
from scalesearch.values.settings import LatencySettings

CALM_S, CALM_WINDOW_S = 3.0, 0.01
"""The calm time is searched for so long, in windows of this length."""
CALM_STRETCH_S = 0.1
"""It is searched for on one core for so many seconds, then on the next core."""


def calm_time(reference: TimedEngine, *, settings: LatencySettings, move: Move | None = None) -> float:
    """Return the milliseconds of one run of `reference` while nothing disturbs it: the least of 10 ms windows' medians.

    It is found once, at the start of a study, inside `DeviceLock.quiet()`. Ratios times this time are milliseconds, so
    an error in it changes all latencies of a study alike and never their order. `move` lets it look at every core,
    since one of them may be disturbed.
    """
    run_s = warm_up(reference, settings.warmup_s)
    runs = max(1, round(CALM_WINDOW_S / run_s))
    windows, stretch_s = [], 0.0
    for _ in range(max(1, round(CALM_S / (runs * run_s)))):
        windows.append(timed(reference, runs))
        stretch_s += sum(windows[-1])
        if move and stretch_s >= CALM_STRETCH_S:
            move()
            stretch_s = 0.0
    return 1e3 * calmest_window_s(np.asarray(windows))


def calmest_window_s(windows_s: Seconds) -> float:
    """Return the median run time in the calmest window, in seconds; `windows_s` is (windows, runs)."""
    return float(np.median(windows_s, axis=1).min())
