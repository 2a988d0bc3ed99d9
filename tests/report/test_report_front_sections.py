"""The sections on what was found: which doubts are told, and in how many lines."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from scalesearch.records.store import RecordStore
from scalesearch.report.front_sections import warning_lines
from scalesearch.study.contents import read_contents
from scalesearch.values.record import MeasuredTrial

MakeRecord = Callable[..., MeasuredTrial]


def test_unsettled_latencies_are_one_line_that_names_the_trials_and_hide_no_other_warning(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    store = RecordStore(tmp_path)
    store.save(make_record(0, top1=0.9, p50_ms=1.0))
    for trial in range(1, 26):  # each with numbers of its own
        record = make_record(trial, top1=0.5, p50_ms=1.0 + trial)
        latency = replace(record.latency, stable=False, calm_fraction=trial / 100)
        store.save(replace(record, latency=latency, warnings=(latency.why_unstable,)))
    store.save(make_record(26, top1=0.5, p50_ms=30.0, warnings=("the kernel is not the one that was asked for",)))
    lines = list(warning_lines(read_contents(tmp_path)))
    told = [line for line in lines if "did not settle" in line]
    named = ", ".join(map(str, range(1, 21)))
    assert len(told) == 1
    assert "Unstable latency: 25 trials did not settle" in told[0]
    assert told[0].endswith(f"disturbed): {named} and 5 more; none of them on the front.")
    assert "the kernel is not the one that was asked for (1 trial)" in lines
    assert not any("more kinds of warning" in line for line in lines)


def test_an_unsettled_member_of_the_front_is_named_as_one(tmp_path: Path, make_record: MakeRecord) -> None:
    member = make_record(3)
    RecordStore(tmp_path).save(replace(member, latency=replace(member.latency, stable=False)))
    told = next(line for line in warning_lines(read_contents(tmp_path)) if "did not settle" in line)
    assert told.endswith(
        "1 trial did not settle in time (too wide an interval, or the machine was disturbed): 3; on the front: 3."
    )
