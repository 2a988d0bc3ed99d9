"""What a latency stands for: the engine alone, or its sum with the work on the engine's answers."""

from dataclasses import replace

import pytest
from fake_evaluators import make_latency

from scalesearch.values.latency import Latency, Postprocessing

AFTER = Postprocessing(p50_ms=0.5, p50_low_ms=0.4, p50_high_ms=0.7, images=9)


def interval(latency: Latency | None) -> tuple[float, float, float]:
    assert latency is not None
    return latency.p50_low_ms, latency.p50_ms, latency.p50_high_ms


def test_end_to_end_is_the_sum_and_the_engine_is_found_in_it_again() -> None:
    alone = make_latency(2.0, 0.1)
    low, p50, high = interval(alone)
    whole = alone.beside(AFTER, "end_to_end")
    assert interval(whole) == pytest.approx((low + 0.4, p50 + 0.5, high + 0.7))
    assert interval(whole.of_engine) == pytest.approx((low, p50, high))
    assert interval(whole.end_to_end) == pytest.approx(interval(whole))
    assert (whole.name, whole.title) == ("end_to_end_ms", "end-to-end")
    assert (whole.of_engine.name, whole.of_engine.title) == ("p50_ms", "p50")


def test_beside_the_engine_it_is_known_but_not_in_the_objective() -> None:
    alone = make_latency(2.0, 0.1)
    beside = alone.beside(AFTER, "engine")
    assert interval(beside) == interval(alone)
    assert interval(beside.end_to_end)[1] == pytest.approx(2.5)
    assert alone.end_to_end is None
    assert interval(alone.beside(None, "end_to_end")) == interval(alone)


def test_doubts_about_the_unit_do_not_depend_on_the_post_processing() -> None:
    # The reference ran at 1 ms; its calm time, the unit, is 2.0 / ratio.
    fast = replace(make_latency(2.0, 0.1), ratio=2.0, reference_lowest_ms=1.0)
    slow = replace(fast, ratio=1.0)
    for objective in ("engine", "end_to_end"):
        assert not fast.beside(AFTER, objective).unit_too_slow
        assert slow.beside(AFTER, objective).unit_too_slow
