from dataclasses import replace
from typing import Any

import pytest

from scalesearch.analysis.paid import paid_lines
from scalesearch.values.record import Gain


def gain(speedup: float, half: float = 0.05, change: float = -0.01) -> Gain:
    return Gain(
        step="precision",
        what="int8",
        speedup=speedup,
        speedup_low=speedup - half,
        speedup_high=speedup + half,
        score_change=change,
    )


def test_one_line_for_each_step_and_kind_of_network(make_record: Any) -> None:
    records = [make_record(number, gains=(gain(speedup),)) for number, speedup in enumerate((0.8, 1.0, 2.0, 3.0))]
    depthwise = make_record(4, gains=(gain(0.5),))
    stages = tuple(replace(stage, block="mbconv") for stage in depthwise.spec.stages)
    depthwise = replace(depthwise, spec=replace(depthwise.spec, stages=stages))
    assert paid_lines([*records, depthwise]) == (
        "int8 paid on 2 of 4 dense networks: median speed-up 1.50x (0.80 to 3.00), accuracy -1.0 points",
        "int8 paid on 0 of 1 depthwise network: median speed-up 0.50x, accuracy -1.0 points",
    )


def test_repeats_and_failures_do_not_count(make_record: Any) -> None:
    repeated = make_record(1, state="cached", same_as=0, gains=(gain(2.0),))
    assert paid_lines([repeated, make_record(2, top1=None)]) == ()


@pytest.mark.parametrize(
    ("speedup", "change", "expected"),
    [(1.04, -0.01, True), (1.06, -0.01, False), (0.5, 0.0, True), (0.5, 0.01, False)],
)
def test_no_gain_is_no_speed_beyond_doubt_and_no_accuracy(speedup: float, change: float, expected: bool) -> None:
    assert gain(speedup, change=change).no_gain is expected
