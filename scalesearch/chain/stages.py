"""A trial's stages: announced as they begin, and timed."""

import contextlib
import time
from collections.abc import Callable, Iterator

from scalesearch.values.record import StageTime


class StageClock:
    """Announces and times the stages; a stage entered twice counts twice.

    Args:
        report: Hears the name of each stage as it begins.
        paused_s: How long work has been held up so far (`DeviceLock.paused_s`): what falls into a stage is a stage
            `wait`, not part of it.
    """

    def __init__(
        self, report: Callable[[str], None] = lambda _: None, paused_s: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._report, self._paused_s = report, paused_s
        self.times: tuple[StageTime, ...] = ()

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """One stage, as long as the block lasts."""
        self._report(stage)
        start, paused_before_s = time.perf_counter(), self._paused_s()
        yield
        paused_s = self._paused_s() - paused_before_s
        self.times = (*self.times, StageTime(stage=stage, seconds=time.perf_counter() - start - paused_s))
        if paused_s:
            self.times = (*self.times, StageTime(stage="wait", seconds=paused_s))

    @contextlib.contextmanager
    def held(self, lock: contextlib.AbstractContextManager[None]) -> Iterator[None]:
        """Holds the lock; the time until it is had is a stage of its own, since others' work may be long."""
        with contextlib.ExitStack() as stack:
            with self("wait"):
                stack.enter_context(lock)
            yield
