"""What the latencies of a study say about each other."""

from collections.abc import Callable
from dataclasses import replace

from scalesearch.analysis.timing_doubts import timing_doubts
from scalesearch.values.record import MeasuredTrial, TrialRecord

MakeRecord = Callable[..., MeasuredTrial]


def timed(record: TrialRecord, **found: object) -> TrialRecord:
    assert record.latency
    return replace(record, latency=replace(record.latency, **found))  # type: ignore[arg-type]


def test_stable_trials_of_the_bad_mood_in_which_the_unit_was_found_are_named(make_record: MakeRecord) -> None:
    levels_ms = {0: 0.300, 1: 0.305, 2: 0.214, 3: 0.222}
    records = [
        timed(make_record(trial), calm_fraction=1.0, reference_lowest_ms=level_ms)
        for trial, level_ms in levels_ms.items()
    ]
    (told,) = timing_doubts(records)
    assert told.endswith("called stable: trial 0, 1")
    # What is called unstable anyway, or is within what processes differ by, needs no such word.
    unstable = [timed(record, stable=record.trial > 1) for record in records]
    assert list(timing_doubts(unstable)) == []
    assert list(timing_doubts(records[2:])) == []


def test_two_methods_in_one_study_are_said(make_record: MakeRecord) -> None:
    old, new = make_record(0), timed(make_record(1), calm_fraction=0.9, reference_lowest_ms=2.0)
    (told,) = timing_doubts([old, new])
    assert told.startswith("latencies of 1 trials are from a version that did not ask whether the machine was calm")
    assert told.endswith("trial 0")
    assert list(timing_doubts([old])) == list(timing_doubts([new])) == list(timing_doubts([])) == []


def test_many_trials_are_cut_short(make_record: MakeRecord) -> None:
    records = [*(make_record(trial) for trial in range(30)), timed(make_record(30), calm_fraction=1.0)]
    (told,) = timing_doubts(records)
    assert told.endswith("trial 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...")
