import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from command import run_command

from scalesearch.cli import pick
from scalesearch.cli.pick import parse_weights
from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.records.confirmed import write_confirmed
from scalesearch.records.front_scores import write_front_scores
from scalesearch.records.store import RecordStore
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import FrontScore, MeasuredTrial

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture
def study(make_record: MakeRecord, tmp_path: Path) -> Path:
    store = RecordStore(tmp_path)
    for trial, (top1, p50_ms) in enumerate([(0.5, 1.0), (0.7, 2.0), (0.8, 4.0), (0.81, 4.02), (0.6, 9.0)]):
        store.save(make_record(trial, top1=top1, p50_ms=p50_ms))
    return tmp_path


_run = partial(run_command, pick.register)


def test_the_choice_is_told_with_reason_price_and_doubt(study: Path) -> None:
    lines = _run(str(study), "--max-latency", "4.01ms").splitlines()
    assert lines[0].startswith("trial 2: top-1 80.0 (78.0-82.0) %, p50 4.000 (3.960-4.040) ms, 32 px")
    assert lines[1] == "chosen:      the most accurate of 3 front members within 4.01 ms"
    assert lines[2] == "not faster:  trial 1: -10.0 points for -2 ms (-50 %)"
    assert lines[3] == (
        "not slower:  trial 3: +1.0 points, within the error of these images, for +0.02 ms (+0 %), out of bounds"
    )
    assert lines[4].startswith("tie:         with trial 3: all intervals overlap")
    assert any("up to 4.04 ms" in line for line in lines)
    assert lines[-1] == f"take it:     scalesearch export {study} --trial 2 --to best"


def test_what_was_seen_after_the_search_is_told(study: Path) -> None:
    record = RecordStore(study).load(1)
    assert record.quality and record.latency
    assert "confirmed:   no" in _run(str(study), "--max-latency", "3ms")
    test = replace(record.quality, score=0.61, score_low=0.6, score_high=0.62)
    write_front_scores(study, [FrontScore(trial=1, test=test, latency=record.latency)])
    run = ConfirmedRun(
        trial=1, seed=7, steps=100, train_s=1.0, float_score=0.7, validation=record.quality, test=test,
        latency=record.latency, size_bytes=1, onnx_sha256="", network_sha256="",
    )  # fmt: skip
    write_confirmed(study, run)
    text = _run(str(study), "--max-latency", "3ms")
    assert "the same file 61.0 (60.0-62.0) %" in text
    assert "confirmed:   trained at full length, 61.0 % on test images (1 seed)" in text
    assert "--trial 1 --confirmed --to best" in text


def test_json_is_a_list_with_the_choice_first(study: Path) -> None:
    rows = json.loads(_run(str(study), "--max-latency", "4.01ms", "--json"))
    assert [(row["role"], row["trial"]) for row in rows] == [("choice", 2), ("faster", 1), ("slower", 3), ("tie", 3)]
    assert rows[0]["top1"] == 0.8 and rows[0]["rule"].startswith("the most accurate") and rows[0]["doubts"]


def test_nothing_within_the_bounds_names_what_is_near(study: Path) -> None:
    with pytest.raises(NoFeasibleTrialError, match="fastest is trial 0"):
        _run(str(study), "--max-latency", "0.5ms")


@pytest.mark.parametrize("text", ["accuracy", "speed=1", "accuracy=-1", "accuracy=inf", "accuracy=0,latency=0", ""])
def test_weights_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--weights"):
        parse_weights(text)


def test_weights_default_to_one() -> None:
    assert parse_weights("latency=2") == (1.0, 2.0)
    assert parse_weights("accuracy=3, latency=0.5") == (3.0, 0.5)


def test_two_rules_at_once_are_refused(study: Path) -> None:
    with pytest.raises(ConfigError, match="one of --knee"):
        _run(str(study), "--knee", "--weights", "accuracy=1")
