"""Where a search's time went, out of made-up records."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from time_shares import evaluated, table, time_shares

from scalesearch.records.store import RecordStore
from scalesearch.values.record import StageTime


@pytest.fixture
def study(tmp_path: Path, make_record: Any) -> Path:
    """Two trials on the front, written 100 and 250 seconds after the oldest file."""
    oldest = tmp_path / "reference.onnx"
    oldest.touch()
    os.utime(oldest, (1_000_000, 1_000_000))
    for number, (top1, p50_ms, training_s) in enumerate(((0.5, 1.0, 30.0), (0.7, 2.0, 50.0))):
        stages = (
            StageTime(stage="train", seconds=training_s, cpu_s=training_s / 2),
            StageTime(stage="latency", seconds=10.0, cpu_s=5.0),
            StageTime(stage="wait", seconds=10.0),
            StageTime(stage="resize", seconds=0.0, cpu_s=0.0),
        )
        record = replace(make_record(number, top1=top1, p50_ms=p50_ms), stages=stages)
        path = RecordStore(tmp_path).save(record)
        os.utime(path, (1_000_100 + 150 * number,) * 2)
    return tmp_path


def test_shares_are_those_of_all_stages_and_moments_are_when_records_were_written(study: Path) -> None:
    found = time_shares(study, members=2)
    assert (found.stages_s, found.cpu_s) == pytest.approx((120.0, 50.0))
    assert found.training == pytest.approx((80 / 120, 40 / 50))
    assert found.wall_shares["latency"] == found.wall_shares["wait"] == pytest.approx(20 / 120)
    assert (found.first_s, found.members_s, found.search_s, found.front) == (100.0, 250.0, 250.0, 2)
    assert found.trained_an_hour == pytest.approx(3600 * 2 / 250)
    assert time_shares(study, members=3).members_s is None
    lines = table([(study, found)], members=2)
    assert "| **all training** | 67 % (80 %) |" in lines and "| front of 2, s | 250 |" in lines


def test_latencies_that_did_not_settle_or_ended_early_are_counted(study: Path, make_record: Any) -> None:
    store = RecordStore(study)
    member, off = store.load(0), make_record(2, top1=0.4, p50_ms=3.0)
    assert member.latency
    store.save(replace(member, latency=replace(member.latency, stable=False)))
    for trial, coarse in ((2, False), (3, True), (4, True)):
        latency = replace(off.latency, stable=False, coarse=coarse)
        store.save(replace(off, trial=trial, latency=latency))
    found = time_shares(study, members=2)
    assert (found.evaluated, found.front, found.unstable, found.coarse) == (5, 2, (2, 1), (2, 0))
    lines = table([(study, found)], members=2)
    assert "| unstable latencies: complete trials, on the front | 2, 1 |" in lines
    assert "| coarse latencies: complete trials, on the front | 2, 0 |" in lines


def test_of_common_trials_alone_the_stages_count(study: Path) -> None:
    first = next(key for key, record in evaluated(study).items() if record.trial == 0)
    found = time_shares(study, members=2, common={first})
    assert found.stages_s == pytest.approx(50.0)
    assert found.training[0] == pytest.approx(30 / 50)
    assert found.search_s == 250.0


def test_a_study_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a study with at least one complete trial, found none"):
        time_shares(tmp_path, members=8)
