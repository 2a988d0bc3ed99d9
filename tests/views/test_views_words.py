from collections.abc import Callable
from dataclasses import replace

import pytest

from scalesearch.tasks.classification.views import ClassificationViews
from scalesearch.values.candidate import Scaling, StageScaling
from scalesearch.values.record import FrontScore, LimitUse, MeasuredTrial, TrialRecord
from scalesearch.views.words import (
    bytes_text,
    count,
    describe,
    latency_with_interval,
    milliseconds,
    multipliers,
    verdict,
)

MakeRecord = Callable[..., MeasuredTrial]


def _text(record: TrialRecord, score: FrontScore | None = None) -> dict[str, dict[str, str]]:
    told = describe(record, score, task_sections=ClassificationViews().sections(record))
    return {section.title: dict(section.lines) for section in told}


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1 k"), (999_999, "1 M"), (20_440_000, "20.4 M"), (4_089_184_256, "4.09 G")],
)
def test_counts_keep_three_digits(number: int, text: str) -> None:
    assert count(number) == text


def test_sizes_are_decimal_bytes() -> None:
    assert [bytes_text(size) for size in (12, 1_250_000)] == ["12 B", "1.25 MB"]


def test_every_part_of_a_complete_trial_is_told(make_record: MakeRecord) -> None:
    page = _text(make_record(3, top1=0.8, p50_ms=1.5, precision="int8", warnings=("pruned less than asked",)))
    assert list(page) == [
        "Result",
        "What was asked",
        "What it became",
        "Training",
        "Latency",
        "Quality of the deployed file",
        "What compression brought",
        "Weakest classes",
        "Time",
        "Warnings",
    ]
    assert page["Result"]["top-1, %"] == "80.0 (78.0-82.0), 95 % interval"
    assert page["What was asked"]["precision"] == "int8, percentile 99.99 over 128 images"
    assert page["What it became"]["stage 2"] == "3 x basic, 48 channels, 3x3, stride 2"
    assert page["What it became"]["MACs"] == "20 M, 31 M before pruning"
    way = "torch 81.0 % -> ONNX fp32 81.0 % -> engine 80.0 %, -1.0 points"
    assert page["Quality of the deployed file"]["way to the engine"] == way
    assert page["What compression brought"] == {
        "channels 25 %": "1.20x as fast (1.10-1.30), top-1 -2.0 points",
        "int8": "0.95x as fast (0.90-1.00), top-1 -1.0 points, NO GAIN: it costs accuracy and is not faster",
    }
    assert list(page["Weakest classes"]) == ["speed 30", "priority", "yield", "stop"], "lowest recall first"
    assert page["Time"]["together"] == "14.0 s"


def test_a_failed_trial_tells_its_reason_and_nothing_that_it_never_reached(make_record: MakeRecord) -> None:
    page = _text(make_record(3, top1=None))
    assert page["Result"]["verdict"] == "failed: train: loss is not finite"
    assert not {"Training", "Latency", "Quality of the deployed file", "Weakest classes"} & set(page)


def test_verdict_names_the_broken_limit(make_record: MakeRecord) -> None:
    limits = (LimitUse(limit="max_macs", excess=-0.1), LimitUse(limit="max_latency_ms", excess=0.25))
    assert verdict(make_record(0, limits=limits)) == "infeasible: max_latency_ms exceeded by 25 %"
    assert verdict(make_record(0)) == "feasible"


def test_an_unstable_latency_and_a_repeat_are_said(make_record: MakeRecord) -> None:
    record = make_record(0, same_as=4, state="cached")
    assert record.latency is not None
    page = _text(replace(record, latency=replace(record.latency, stable=False)))
    assert "NOT STABLE" in page["Latency"]["p50, ms"]
    assert page["Result"]["answered from"].startswith("trial 4:")


def test_the_last_look_is_told(make_record: MakeRecord) -> None:
    record = make_record(0, top1=0.7)
    assert record.quality and record.latency
    page = _text(record, FrontScore(trial=0, test=record.quality, latency=record.latency))
    assert page["Looked at again after the search"]["test top-1, %"].startswith("70.0 (68.0-72.0) on 1000")


def test_intervals_keep_the_digits_that_mean_something(make_record: MakeRecord) -> None:
    texts = [
        latency_with_interval(latency) for p50 in (1.0, 25.0, 250.0) if (latency := make_record(0, p50_ms=p50).latency)
    ]
    assert texts == ["1.000 (0.990-1.010)", "25.00 (24.75-25.25)", "250.0 (247.5-252.5)"]


def test_multipliers_mark_stages_that_differ() -> None:
    assert multipliers(Scaling(depth=1.5, width=0.75)) == "1.5 x 0.75 x 1"
    assert multipliers(Scaling(stages=(StageScaling(),))) == "1 x 1 x 1*"


@pytest.mark.parametrize(
    ("value_ms", "text"),
    [
        (0.0, "0.000 ms"), (0.000051, "0.0000510 ms"), (0.0051234, "0.00512 ms"), (0.0499, "0.0499 ms"),
        (0.1, "0.100 ms"), (1.2345, "1.234 ms"), (9.9, "9.900 ms"), (12.34, "12.3 ms"), (812.6, "812.6 ms"),
    ],
)  # fmt: skip
def test_small_latencies_keep_three_digits(value_ms: float, text: str) -> None:
    assert milliseconds(value_ms) == text


def test_an_interval_of_a_tiny_latency_is_seen(make_record: MakeRecord) -> None:
    latency = make_record(0, p50_ms=0.0053).latency
    assert latency
    narrow = replace(latency, p50_low_ms=0.005299, p50_high_ms=0.005302)
    assert latency_with_interval(narrow) == "0.005300 (0.005299-0.005302)"
