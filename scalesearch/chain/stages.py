"""Announce a trial's stages as they begin, and time them."""

import contextlib
import time
from collections.abc import Callable, Iterator

from scalesearch.values.record import StageTime


class StageClock:
    """Announces and times the stages; a stage that is entered twice has two entries.

    Args:
        report: Called with the name of each stage as it begins.
        paused_s: Returns for how many seconds work has been held up so far (`DeviceLock.paused_s`). Such time within a
            stage is not counted as part of it, but as a stage `wait`.
    """

    def __init__(
        self, report: Callable[[str], None] = lambda _: None, paused_s: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._report, self._paused_s = report, paused_s
        self._stage = ""
        self.times: tuple[StageTime, ...] = ()

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Announce a stage, and time it for as long as the block lasts."""
        self._stage = stage
        self._report(stage)
        start, start_cpu_s, paused_before_s = time.perf_counter(), time.process_time(), self._paused_s()
        yield
        paused_s = self._paused_s() - paused_before_s
        seconds, cpu_s = time.perf_counter() - start - paused_s, time.process_time() - start_cpu_s
        self.times = (*self.times, StageTime(stage=stage, seconds=seconds, cpu_s=cpu_s))
        if paused_s:
            self.times = (*self.times, StageTime(stage="wait", seconds=paused_s))

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Announce the stage `wait` for as long as the block lasts, and then the stage that it interrupted again.

        Nothing is timed: `paused_s` tells how long it was.
        """
        self._report("wait")
        yield
        self._report(self._stage)

    @contextlib.contextmanager
    def held(self, lock: contextlib.AbstractContextManager[None]) -> Iterator[None]:
        """Hold the lock inside the block.

        The time until the lock is held counts as a stage `wait`, since other processes may hold it for long.
        """
        with contextlib.ExitStack() as stack:
            with self("wait"):
                stack.enter_context(lock)
            yield
