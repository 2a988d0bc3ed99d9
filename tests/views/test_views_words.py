from collections.abc import Callable
from dataclasses import replace

import pytest

from scalesearch.values.candidate import Pruning, Scaling, StageScaling
from scalesearch.values.record import LimitUse, MeasuredTrial
from scalesearch.views.words import (
    bytes_text,
    count,
    latency_with_interval,
    made_pruning_text,
    milliseconds,
    multipliers,
    remedy,
    verdict,
)

MakeRecord = Callable[..., MeasuredTrial]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1 k"), (999_999, "1 M"), (20_440_000, "20.4 M"), (4_089_184_256, "4.09 G")],
)
def test_counts_keep_three_digits(number: int, text: str) -> None:
    assert count(number) == text


def test_sizes_are_decimal_bytes() -> None:
    assert [bytes_text(size) for size in (12, 1_250_000)] == ["12 B", "1.25 MB"]


def test_verdict_names_the_broken_limit(make_record: MakeRecord) -> None:
    limits = (LimitUse(limit="max_macs", excess=-0.1), LimitUse(limit="max_latency_ms", excess=0.25))
    assert verdict(make_record(0, limits=limits)) == "infeasible: max_latency_ms exceeded by 25 %"
    assert verdict(make_record(0)) == "feasible"


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


def test_a_short_training_is_said_and_what_to_do_about_it(make_record: MakeRecord) -> None:
    record = make_record(0)
    short = replace(record, full_updates=4 * record.candidate.recipe.steps)
    assert verdict(short) == f"trained in part: {record.candidate.recipe.steps} of {short.full_updates} updates"
    over = replace(short, limits=(LimitUse(limit="max_macs", excess=0.25),))
    assert verdict(over) == "infeasible: max_macs exceeded by 25 %"
    assert remedy([over, short]).startswith("Continue the run: no training was brought to full length")
    assert "with --fresh, loosen [limits]" in remedy([over])  # limits belong to what a study is
    failed = replace(over, state="failed", reason="train: out of memory")
    assert remedy([failed, failed]) == "Every trial failed, the last one: train: out of memory."
    assert "loosen [limits]" in remedy([over, failed])


@pytest.mark.parametrize(
    ("asked", "made", "text"),
    [
        (Pruning(channel_fraction=0.25), Pruning(channel_fraction=0.25), "25 % of the channels (l2, uniform)"),
        (
            Pruning(channel_fraction=0.25, block_fraction=0.3),
            Pruning(),
            "none (asked: 25 % of the channels (l2, uniform), which rounds to no channel; 30 % of the blocks, which "
            "rounds to no block)",
        ),
        (
            Pruning(channel_fraction=0.5, rounds=2, sparsity="2:4"),
            Pruning(channel_fraction=0.5, rounds=2),
            "50 % of the channels (l2, uniform, 2 rounds) (asked: 2:4 zeros, for which no layer is wide enough)",
        ),
    ],
)
def test_what_was_asked_in_vain_is_told_apart(asked: Pruning, made: Pruning, text: str) -> None:
    assert made_pruning_text(asked, made) == text
