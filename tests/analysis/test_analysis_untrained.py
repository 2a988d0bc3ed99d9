"""What the timing of untrained networks saved, by the stages of made-up records."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from scalesearch.analysis.untrained import untrained_line
from scalesearch.values.record import LimitUse, MeasuredTrial, StageTime, TrialRecord

MakeRecord = Callable[..., MeasuredTrial]


def stages(**seconds: float) -> tuple[StageTime, ...]:
    return tuple(StageTime(stage=stage, seconds=took) for stage, took in seconds.items())


def rejected(make_record: MakeRecord, trial: int, seconds: float, *, limit: str = "max_latency_ms") -> TrialRecord:
    took = stages(start=0.1, wait=30.0, untrained=seconds)
    changes: dict[str, Any] = {"state": "rejected", "charged": False, "stages": took}
    return make_record(trial, top1=None, limits=(LimitUse(limit=limit, excess=0.4),), **changes)


def test_timing_is_held_against_the_mean_of_the_trainings_that_were_made(make_record: MakeRecord) -> None:
    trained = [
        make_record(0, stages=stages(untrained=2.0, train=8.0, retrain=4.0, latency=9.0)),
        make_record(1, excess=0.1, stages=stages(untrained=3.0, wait=50.0, train=18.0)),
        make_record(2, charged=False, stages=stages(untrained=0.0)),  # another precision of trained weights
    ]
    slow = [rejected(make_record, trial, 2.0) for trial in (3, 4, 5)]
    repeated = replace(slow[0], trial=6, same_as=3, stages=())
    assert untrained_line([*trained, *slow, repeated]) == (
        "limits.max_latency_ms: 3 candidates were too slow and rejected untrained, 2 trained: 6 s of timing in place "
        "of about 45 s of training (3 times the mean, 15.0 s); timing those that passed took 5 s; 1 of the trained is "
        "too slow all the same"
    )


def test_without_a_training_nothing_is_estimated(make_record: MakeRecord) -> None:
    assert untrained_line([rejected(make_record, 0, 2.4)]) == (
        "limits.max_latency_ms: 1 candidate was too slow and rejected untrained, 0 trained: 2 s of timing"
    )


def test_what_it_took_is_told_where_nothing_was_rejected(make_record: MakeRecord) -> None:
    assert untrained_line([make_record(0, stages=stages(untrained=2.0, train=8.0))]) == (
        "limits.max_latency_ms: no candidate was too slow and rejected untrained, 1 trained; timing those that passed "
        "took 2 s"
    )


def test_without_a_limit_of_latency_there_is_no_line(make_record: MakeRecord) -> None:
    heavy = make_record(1, top1=None, state="rejected", charged=False, limits=(LimitUse(limit="max_macs", excess=1),))
    assert untrained_line([make_record(0), replace(heavy, stages=())]) == ""
