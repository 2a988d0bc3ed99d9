"""The time of the trainings that a run makes before its first candidate: `--max-time` counts them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Preparation:
    """Adds up the seconds of the blocks that are entered with it: `with preparation.training(): ...`."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.seconds = 0.0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Count the time of the block."""
        began = self._now()
        try:
            yield
        finally:
            self.seconds += self._now() - began
