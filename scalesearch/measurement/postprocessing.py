"""Times the work on a network's answers, such as decoding and suppression, which is done on the host."""

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from scalesearch.values.latency import Postprocessing

ROUNDS: Final = 5
"""How often the post-processing of each image is timed."""


def time_postprocessing(
    calls: Sequence[Callable[[], object]],
    *,
    batch: int = 1,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Postprocessing | None:
    """Return the median time of the calls, one for each image; None if there are none.

    Images are worked on in turn, round by round, after one round that does not count. Each round gives a median over
    the images; the result is the median of these. Call this function inside `DeviceLock.quiet()`.

    Args:
        calls: What is done with the answers to one image each.
        batch: Batch size of the engine's latency; the time is multiplied by it, so that both are for a batch.
        rounds: How often each call is timed.
        clock: Returns the time in seconds.
    """
    if not calls:
        return None
    for call in calls:
        call()
    medians_ms = [1e3 * batch * float(np.median([_timed_s(call, clock) for call in calls])) for _ in range(rounds)]
    return Postprocessing(
        p50_ms=float(np.median(medians_ms)),
        p50_low_ms=min(medians_ms),
        p50_high_ms=max(medians_ms),
        images=len(calls),
    )


def _timed_s(call: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    call()
    return clock() - started
