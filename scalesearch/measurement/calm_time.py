"""Finds how fast an engine runs while nothing disturbs the machine."""

import numpy as np

from scalesearch.measurement.duet import Seconds
from scalesearch.measurement.latency import Move, TimedEngine, timed, warm_up
from scalesearch.values.settings import LatencySettings

CALM_S, CALM_WINDOW_S = 3.0, 0.01
"""Seconds of the whole measurement of a calm time, and of each of its windows."""
CALM_STRETCH_S = 0.1
"""Seconds of the measurement on one core before it moves to the next."""


def calm_time(reference: TimedEngine, *, settings: LatencySettings, move: Move | None = None) -> float:
    """Return the milliseconds that a run of `reference` takes undisturbed: the least median of windows of 10 ms.

    It is measured once, at the start of a study, inside `DeviceLock.quiet()`. Latencies are ratios times this time, so
    an error in it scales all latencies of a study alike and never changes their order. `move` is called to measure on
    every core, since some cores may be disturbed.
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
