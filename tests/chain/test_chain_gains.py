import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_evaluators import make_latency

from scalesearch.chain.gains import TwinStore, gain
from scalesearch.values.latency import Latency


def test_a_speedup_is_the_ratio_without_over_with_and_its_doubt_is_of_both() -> None:
    found = gain(
        "precision", "int8", without=make_latency(3.0, 0.03), having=make_latency(2.0, 0.04), score_change=-0.01
    )
    assert found.speedup == pytest.approx(1.5)
    # Independent relative half-widths add in quadrature: 3 % and 4 % make 5 %, on the logarithm.
    assert (found.speedup_low, found.speedup_high) == pytest.approx((1.5 * math.exp(-0.05), 1.5 * math.exp(0.05)))
    assert not found.no_gain


def test_a_speedup_within_its_doubt_is_no_gain() -> None:
    found = gain(
        "precision", "fp16", without=make_latency(1.02, 0.03), having=make_latency(1.0, 0.04), score_change=0.0
    )
    assert found.speedup > 1 > found.speedup_low
    assert found.no_gain


def test_a_twin_is_measured_once_a_study_and_again_where_its_file_is_damaged(tmp_path: Path) -> None:
    measured: list[float] = []

    def measure(ratio: float) -> Any:
        def now() -> Latency:
            measured.append(ratio)
            return make_latency(ratio, 0.0)

        return now

    assert TwinStore(tmp_path).latency("key", measure(1.0)).ratio == 1.0
    assert TwinStore(tmp_path).latency("key", measure(2.0)).ratio == 1.0
    assert TwinStore(tmp_path).latency("other", measure(3.0)).ratio == 3.0
    (tmp_path / "twins" / "key.json").write_text("{")
    assert TwinStore(tmp_path).latency("key", measure(4.0)).ratio == 4.0
    assert measured == [1.0, 3.0, 4.0]


def test_a_twin_that_was_timed_briefly_is_timed_again_for_what_was_timed_to_the_full(tmp_path: Path) -> None:
    twins, brief, whole = TwinStore(tmp_path), replace(make_latency(1.0, 0.1), coarse=True), make_latency(1.1, 0.01)
    assert twins.latency("key", lambda: brief, coarse=True) == brief
    assert twins.latency("key", lambda: whole, coarse=True) == brief
    assert twins.latency("key", lambda: whole) == whole
    assert twins.latency("key", lambda: brief, coarse=True) == whole


def test_a_speedup_that_was_timed_briefly_is_not_called_no_gain_for_its_doubt() -> None:
    with_step, without = replace(make_latency(1.0, 0.04), coarse=True), make_latency(1.02, 0.03)
    assert not gain("precision", "int8", without=without, having=with_step, score_change=0.0, coarse=True).no_gain
    slower = replace(make_latency(1.03, 0.04), coarse=True)
    assert gain("precision", "int8", without=without, having=slower, score_change=0.0, coarse=True).no_gain


def test_a_twin_that_was_timed_briefly_makes_a_wider_interval_and_no_exception() -> None:
    exact, rough = make_latency(1.0, 0.01), replace(make_latency(1.02, 0.03), coarse=True)
    found = gain("precision", "int8", without=rough, having=exact, score_change=0.0)
    assert not found.coarse
    assert found.no_gain


@pytest.mark.parametrize("half", [0.3, 0.9, 2.0, 30.0])
def test_a_speedup_however_doubtful_stays_above_nothing(half: float) -> None:
    found = gain("precision", "int8", without=make_latency(1.2, half), having=make_latency(1.0, half), score_change=0.0)
    assert 0 < found.speedup_low < found.speedup < found.speedup_high
    # On a ratio's own scale both ends are equally far: as many times below as above.
    assert found.speedup / found.speedup_low == pytest.approx(found.speedup_high / found.speedup)
