"""A trial's stages: announced as they begin, and timed."""

import contextlib
import time
from collections.abc import Callable, Iterator

from scalesearch.values.record import StageTime


class StageClock:
    """Announces and times the stages; a stage entered twice counts twice."""

    def __init__(self, report: Callable[[str], None] = lambda _: None) -> None:
        self._report = report
        self.times: tuple[StageTime, ...] = ()

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """One stage, as long as the block lasts."""
        self._report(stage)
        start = time.perf_counter()
        yield
        self.times = (*self.times, StageTime(stage=stage, seconds=time.perf_counter() - start))

    @contextlib.contextmanager
    def held(self, lock: contextlib.AbstractContextManager[None]) -> Iterator[None]:
        """Holds the lock; the time until it is had is a stage of its own, since others' work may be long."""
        with contextlib.ExitStack() as stack:
            with self("wait"):
                stack.enter_context(lock)
            yield
