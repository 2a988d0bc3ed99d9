from dataclasses import replace
from typing import Any

import pytest

from scalesearch.analysis.paid import gains_by_step, paid_lines
from scalesearch.values.candidate import Candidate, Pruning, Quantization, Recipe, Scaling
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


def network(number: int, *, steps: int = 240, calibration_images: int = 128) -> Candidate:
    return Candidate(
        scaling=Scaling(width=0.5 + number / 10),
        quantization=Quantization(precision="int8", calibration_images=calibration_images),
        recipe=Recipe(steps=steps),
    )


def test_one_line_for_each_step_and_kind_of_network(make_record: Any) -> None:
    records = [
        make_record(number, candidate=network(number), gains=(gain(speedup),))
        for number, speedup in enumerate((0.8, 1.0, 2.0, 3.0))
    ]
    depthwise = make_record(4, gains=(gain(0.5),))
    stages = tuple(replace(stage, block="mbconv") for stage in depthwise.spec.stages)
    depthwise = replace(depthwise, spec=replace(depthwise.spec, stages=stages))
    assert paid_lines([*records, depthwise]) == (
        "int8 paid on 2 of 4 dense networks: median speed-up 1.50x (0.80 to 3.00), accuracy -1.0 points",
        "int8 paid on 0 of 1 depthwise network: median speed-up 0.50x, accuracy -1.0 points",
    )


def test_a_cut_network_in_several_precisions_counts_once(make_record: Any) -> None:
    cut = replace(gain(1.5, change=-0.02), step="pruning", what="channels 25 %")
    candidates = [
        replace(network(0), pruning=Pruning(channel_fraction=0.25), quantization=Quantization(precision=precision))
        for precision in ("fp32", "fp16", "int8")
    ]
    records = [make_record(number, candidate=each, gains=(cut,)) for number, each in enumerate(candidates)]
    assert paid_lines(records) == (
        "channels 25 % paid on 1 of 1 dense network: median speed-up 1.50x, accuracy -2.0 points",
    )
    assert gains_by_step(records) == {("channels 25 %", "dense"): [cut] * 3}, "the figure shows each of them"


def test_of_several_calibrations_the_best_counts_and_one_that_paid_is_better(make_record: Any) -> None:
    tried = [gain(1.03, change=0.01), gain(1.5, change=-0.04), gain(1.4, change=-0.02), gain(1.6, change=-0.03)]
    records = [
        make_record(number, candidate=network(0, calibration_images=64 + number), gains=(each,))
        for number, each in enumerate(tried)
    ]
    other = make_record(9, candidate=network(1), gains=(gain(0.9, change=-0.02),))
    expected = "int8 paid on 1 of 2 dense networks: median speed-up 1.15x (0.90 to 1.40), accuracy -2.0 points"
    assert paid_lines([*records, other]) == paid_lines([other, *reversed(records)]) == (expected,)


def test_of_several_lengths_the_longest_training_counts(make_record: Any) -> None:
    lengths = {960: gain(1.5, change=-0.03), 240: gain(1.6, change=0.0), 480: gain(1.7, change=0.02)}
    records = [
        make_record(number, candidate=network(0, steps=steps), gains=(each,))
        for number, (steps, each) in enumerate(lengths.items())
    ]
    assert paid_lines(records) == ("int8 paid on 1 of 1 dense network: median speed-up 1.50x, accuracy -3.0 points",)


def test_repeats_and_failures_do_not_count(make_record: Any) -> None:
    repeated = make_record(1, state="cached", same_as=0, gains=(gain(2.0),))
    assert paid_lines([repeated, make_record(2, top1=None)]) == ()


@pytest.mark.parametrize(
    ("speedup", "change", "expected"),
    [(1.04, -0.01, True), (1.06, -0.01, False), (0.5, 0.0, True), (0.5, 0.01, False)],
)
def test_no_gain_is_no_speed_beyond_doubt_and_no_accuracy(speedup: float, change: float, expected: bool) -> None:
    assert gain(speedup, change=change).no_gain is expected
