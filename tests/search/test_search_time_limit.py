"""When a run begins no further candidate."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from study_runs import assert_sound, run

from scalesearch.records.store import RecordStore
from scalesearch.search.events import Event, RunStarted, RunStopped
from scalesearch.search.time_limit import TimeLimit
from scalesearch.values.record import MeasuredTrial, StageTime
from scalesearch.values.settings import UNLIMITED_BUDGET


def test_the_time_is_up_once_a_usual_candidate_would_end_too_late(make_record: Callable[..., MeasuredTrial]) -> None:
    now_s = [100.0]
    limit = TimeLimit(60.0, now=lambda: now_s[0])
    lasted = [
        (StageTime(stage="train", seconds=seconds), StageTime(stage="export", seconds=1)) for seconds in (9, 19, 99)
    ]
    records = [replace(make_record(trial), stages=stages) for trial, stages in enumerate(lasted)]
    now_s[0] = 159.0
    assert not limit.is_up([], trained=True)
    now_s[0] = 140.0
    assert not limit.is_up(records, trained=True)
    now_s[0] = 140.1
    assert limit.is_up(records, trained=True)
    assert not limit.is_up([replace(record, stages=()) for record in records], trained=True)
    assert not TimeLimit(0.0, now=lambda: now_s[0]).is_up(records, trained=True)


def test_what_is_over_when_the_clock_starts_counts_too() -> None:
    now_s = [100.0]
    limit = TimeLimit(60.0, spent_s=25.0, now=lambda: now_s[0])
    assert limit.left_s == 35.0 and not limit.half_over and not limit.is_up([], trained=True)
    now_s[0] = 135.1
    assert limit.half_over and limit.is_up([], trained=True)
    assert TimeLimit(0.0, spent_s=25.0).left_s == math.inf


def test_a_sibling_may_begin_when_a_training_may_not(make_record: Callable[..., MeasuredTrial]) -> None:
    now_s = [0.0]
    limit = TimeLimit(60.0, now=lambda: now_s[0])
    trained = replace(make_record(0), stages=(StageTime(stage="train", seconds=50.0),))
    brief = [
        replace(make_record(trial), charged=False, stages=(StageTime(stage="time", seconds=2.0),))
        for trial in range(1, 9)
    ]
    now_s[0] = 30.0
    assert limit.is_up([trained, *brief], trained=True)
    assert not limit.is_up([trained, *brief], trained=False)
    now_s[0] = 58.5
    assert limit.is_up([trained, *brief], trained=False)


def test_a_run_out_of_time_ends_whole_and_goes_on_later(tmp_path: Path) -> None:
    events: list[Event] = []
    first = run(tmp_path, UNLIMITED_BUDGET, max_time_s=1e-6, on_event=events.append)
    assert (first.ended, first.records) == ("time", ())
    assert first.message == "the time is up at 0 full trainings; run again to go on"
    assert isinstance(events[0], RunStarted) and events[0].max_time_s == 1e-6
    assert isinstance(events[-1], RunStopped) and events[-1].ended == "time"
    assert run(tmp_path, 3, max_time_s=1000.0).ended == "budget"
    assert_sound(tmp_path, 3)


def test_a_budget_that_is_used_up_before_the_time_ends_the_run(tmp_path: Path) -> None:
    run(tmp_path, 2)
    outcome = run(tmp_path, 2, max_time_s=1e-6)
    assert outcome.ended == "budget" and len(RecordStore(tmp_path).all()) == len(outcome.records)
