"""Which trials are confirmed: members near the knee, and trials that are added to the front."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from confirm_fakes import FakeTiming, FakeTraining, MakeRecord, use_fakes, write_study

from scalesearch.analysis.front import pareto_front
from scalesearch.confirm.front import confirm_front
from scalesearch.confirm.members import nearest_knee
from scalesearch.confirm.request import ConfirmRequest
from scalesearch.errors import ConfigError
from scalesearch.records.confirmed import (
    confirmed_path,
    read_confirmed,
    write_confirmed,
)
from scalesearch.records.store import RecordStore
from scalesearch.study.contents import read_contents
from scalesearch.values.candidate import Quantization
from scalesearch.values.session import Session


@pytest.fixture
def study(tmp_path: Path, session: Session, make_record: MakeRecord) -> Path:
    return write_study(tmp_path, session, make_record)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeTraining, FakeTiming]:
    return use_fakes(monkeypatch)


def test_the_nearest_to_the_knee_are_the_knee_and_its_neighbours(make_record: MakeRecord) -> None:
    # log latencies 0, 1, 2, 3, 4; accuracies rise steeply to the third: it is the knee
    points = ((0.5, 1.0), (0.65, 10.0), (0.8, 100.0), (0.82, 1000.0), (0.84, 10000.0))
    front = pareto_front(make_record(i, top1=top1, p50_ms=p50_ms) for i, (top1, p50_ms) in enumerate(points))
    assert [record.trial for record in nearest_knee(front, 1)] == [2]
    # 3 is 1/4 and 0.02/0.34 away, 1 is 1/4 and 0.15/0.34
    assert [record.trial for record in nearest_knee(front, 2)] == [2, 3]
    assert nearest_knee(front, 9) == front
    assert nearest_knee((), 1) == ()


def test_a_trial_off_the_front_is_confirmed_beside_it_and_nothing_twice(
    study: Path, fakes: tuple[FakeTraining, FakeTiming]
) -> None:
    training, timing = fakes
    confirm_front(study, ConfirmRequest(steps=30))
    said = list[str]()
    outcome = confirm_front(study, ConfirmRequest(steps=30, also=(3,)), say=said.append)
    assert [trial for trial, _ in training.asked[6:]] == [3, 3]
    assert timing.sessions == [(0, 1, 2), (0, 1, 2, 3)]
    assert any(line.startswith("3 front members and trial 3 beside them x 2 seeds: 2 of 8 trainings") for line in said)
    assert outcome.confirmation
    moves = outcome.confirmation.moves
    assert [(move.record.trial, move.added, move.on_front) for move in moves] == [
        (0, False, True), (1, False, True), (3, True, False), (2, False, True),
    ]  # fmt: skip
    assert all(move.timed_together and move.seeds == 2 for move in moves)
    rows = list(csv.DictReader((study / "confirmed" / "confirmed.csv").read_text().splitlines()))
    assert {row["trial"]: row["added"] for row in rows} == {"0": "False", "1": "False", "2": "False", "3": "True"}
    # it stays, without being named again: in the table, in what a report reads, and when more seeds are asked for
    again = confirm_front(study, ConfirmRequest(steps=30))
    assert again.confirmation == outcome.confirmation and len(training.asked) == 8 and len(timing.sessions) == 2
    assert read_contents(study).confirmation == outcome.confirmation
    assert confirm_front(study, ConfirmRequest(steps=30, seeds=3)).done == 12


@pytest.mark.parametrize("also", [(), (3,)])
def test_an_added_trial_of_another_length_is_refused_whether_or_not_it_is_named(
    study: Path, fakes: tuple[FakeTraining, FakeTiming], also: tuple[int, ...]
) -> None:
    confirm_front(study, ConfirmRequest(steps=30, also=(3,)))
    for run in read_confirmed(study):
        if run.trial != 3:
            confirmed_path(study, run.trial, run.seed).unlink()
    with pytest.raises(ConfigError, match="trial 3 trained for 30 steps, and 40 are asked for"):
        confirm_front(study, ConfirmRequest(steps=40, also=also))


def test_a_stopped_addition_goes_on_without_being_named(study: Path, fakes: tuple[FakeTraining, FakeTiming]) -> None:
    training, _ = fakes
    training.stop_after = 4
    assert confirm_front(study, ConfirmRequest(steps=30, also=(3,))).ended == "interrupted"
    assert training.asked[3][0] == 3
    training.stop_after = 1000
    assert confirm_front(study, ConfirmRequest(steps=30)).done == 8
    assert len(training.asked) == len(set(training.asked)) == 8


def test_what_cannot_be_added_is_told_before_anything_is_made(
    study: Path, make_record: MakeRecord, fakes: tuple[FakeTraining, FakeTiming]
) -> None:
    store = RecordStore(study)
    store.save(make_record(4, top1=None))
    store.save(make_record(5, top1=0.4, p50_ms=3.0, excess=0.2))
    store.save(replace(make_record(6, top1=0.4, p50_ms=3.0), same_as=3))
    store.save(make_record(7, top1=0.4, p50_ms=3.0, full_updates=960))
    told = {
        9: "no such trial; this study has 8, 0 to 7",
        7: r"is trained in part: 300 of 960 updates\.\nExpected a complete trial of full length within all limits",
        4: r"is not complete \(failed: train: loss is not finite\)",
        5: "is infeasible: max_latency_ms exceeded by 20 %",
        6: "is the same network as trial 3",
        1: "is on the front already",
    }
    for trial, words in told.items():
        with pytest.raises(ConfigError, match=f"--also {trial}: .*{words}") as caught:
            confirm_front(study, ConfirmRequest(also=(trial,)))
        assert len(str(caught.value).splitlines()) <= 3
    with pytest.raises(ConfigError, match=r"--also auto: nothing on the front of .* was confirmed yet"):
        confirm_front(study, ConfirmRequest(also_likely=True))
    assert not (study / "confirmed").exists()
    # with --top, a member that is left out may be named; it is no addition to the front
    outcome = confirm_front(study, ConfirmRequest(steps=30, top=1, also=(2,)))
    assert outcome.confirmation
    assert [(move.record.trial, move.added) for move in outcome.confirmation.moves] == [(1, False), (2, False)]


@pytest.mark.parametrize("length", [ConfirmRequest(steps=100), ConfirmRequest(epochs=1)], ids=["steps", "epochs"])
def test_a_length_too_short_for_a_member_with_rounding_is_told_before_anything_is_made(
    study: Path, fakes: tuple[FakeTraining, FakeTiming], length: ConfirmRequest
) -> None:
    store = RecordStore(study)
    for trial, qat_steps in ((1, 60), (2, 40)):
        record = store.load(trial)
        quantization = Quantization(precision="int8", qat_steps=qat_steps)
        store.save(replace(record, candidate=replace(record.candidate, quantization=quantization)))
    with pytest.raises(ConfigError, match=r"trial 1: expected a branch .*\nGive --steps 182, or more\.") as caught:
        confirm_front(study, length)
    assert len(str(caught.value).splitlines()) <= 3
    assert not (study / "confirmed").exists()
    assert confirm_front(study, ConfirmRequest(steps=182)).done == 6


@pytest.mark.slow
def test_auto_adds_those_that_the_corrected_scores_name(
    study: Path, make_record: MakeRecord, fakes: tuple[FakeTraining, FakeTiming]
) -> None:
    training, _ = fakes
    store, said = RecordStore(study), list[str]()
    sides = {0: 16, 1: 24, 2: 48, 3: 64, 4: 20, 5: 32}
    # trial 3 is just below trial 1, which is faster; two more members of the front
    for trial, top1, p50_ms in ((3, 0.78, 3.0), (4, 0.94, 8.0), (5, 0.95, 9.0)):
        store.save(make_record(trial, top1=top1, p50_ms=p50_ms, device=store.load(0).device))
    for trial, side in sides.items():
        record = store.load(trial)
        assert record.spec
        store.save(replace(record, spec=replace(record.spec, resolution_px=side)))
    first = confirm_front(study, ConfirmRequest(steps=30))
    assert first.correction and first.correction.bias and first.correction.likely == ()
    confirm_front(study, ConfirmRequest(steps=30, also_likely=True), say=said.append)
    assert len(training.asked) == 10 and any("no further trial" in line for line in said)
    # long, small images lose 40 points: trial 3, with large ones, is then better than trial 1
    for run in read_confirmed(study):
        change = -0.4 if sides[run.trial] < 30 else 0.0
        write_confirmed(study, replace(run, validation=replace(run.validation, score=run.validation.score + change)))
    added = confirm_front(study, ConfirmRequest(steps=30, also_likely=True))
    assert {trial for trial, _ in training.asked[10:]} == {3} and added.done == 12
    document = json.loads((study / "confirmed" / "confirmed.json").read_text())
    assert document["brief_bias"]["networks"] == 6 and len(document["brief_bias"]["effects_points"]) == 4
