"""Timing the work on a network's answers, by a clock that the test sets."""

from collections.abc import Callable

from scalesearch.measurement.postprocessing import time_postprocessing
from scalesearch.values.latency import Postprocessing


class Clock:
    """Stands still but for the work that is done."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.worked = 0

    def work(self, seconds: float, extra_s: Callable[[int], float] = lambda _: 0.0) -> Callable[[], None]:
        def call() -> None:
            self.now_s += seconds + extra_s(self.worked)
            self.worked += 1

        return call


def test_it_is_the_median_over_images_times_the_batch() -> None:
    clock = Clock()
    calls = [clock.work(seconds) for seconds in (0.25, 4.0, 0.5)]
    found = time_postprocessing(calls, batch=2, rounds=3, clock=lambda: clock.now_s)
    assert found == Postprocessing(p50_ms=1000.0, p50_low_ms=1000.0, p50_high_ms=1000.0, images=3)
    assert clock.worked == 3 * (1 + 3), "one round to warm up, then three"


def test_rounds_give_the_interval_and_one_disturbed_round_does_not_move_the_median() -> None:
    clock = Clock()
    # Work number 0 warms up; number 2, in the second round, is disturbed.
    found = time_postprocessing(
        [clock.work(0.5, lambda worked: 8.0 if worked == 2 else 0.0)], rounds=3, clock=lambda: clock.now_s
    )
    assert found == Postprocessing(p50_ms=500.0, p50_low_ms=500.0, p50_high_ms=8500.0, images=1)


def test_a_task_without_such_work_has_no_time() -> None:
    assert time_postprocessing(()) is None
