import dataclasses
import json
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fake_evaluators import FakePlanner, MakeFake, make_space
from study_runs import assert_sound, run, running, told

from scalesearch.analysis.front import pareto_front, point
from scalesearch.dashboard.publisher import FRONT_FIGURE, DashboardListener
from scalesearch.errors import CandidateRejected, ConfigError, ScalesearchError, StageFailed
from scalesearch.records.store import RecordStore
from scalesearch.search.events import (
    Event,
    RunStarted,
    RunStopped,
    StageEntered,
    TrialFinished,
)
from scalesearch.search.ledger import FREE_IN_A_ROW
from scalesearch.search.storage import STUDY_FILE, STUDY_NAME, only_coordinator, open_storage
from scalesearch.values.candidate import Candidate
from scalesearch.values.plan import Plan
from scalesearch.values.settings import SamplerName, StageLimits
from scalesearch.values.space import Choice, NamedAxis, Range, SearchSpace

TINY = SearchSpace(
    name="tiny",
    network="fake",
    resolution_px=64,
    axes=(NamedAxis(name="scaling.width", axis=Choice(values=(0.5, 1.0, 1.5))),),
)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_the_budget_is_exact_for_any_number_of_workers(tmp_path: Path, workers: int) -> None:
    events: list[Event] = []
    space = make_space(6, max_macs=2000)
    outcome = run(tmp_path, 8, space=space, workers=workers, fates={1: "stage failed"}, on_event=events.append)
    records = assert_sound(tmp_path, 8)
    assert outcome.records == records
    assert (outcome.ended, outcome.charged) == ("budget", 8)
    assert outcome.front and {r.state for r in outcome.front} == {"complete"}
    assert 0 < outcome.search_s <= outcome.wall_s
    finished = [event for event in events if isinstance(event, TrialFinished)]
    assert Counter(e.record.trial for e in finished) == Counter(r.trial for r in records)
    assert finished[-1].charged_done == 8 and finished[-1].front_size == len(outcome.front)
    fronts = [pareto_front(event.record for event in finished[: end + 1]) for end in range(len(finished))]
    assert [e.on_front for e in finished] == [e.record in front for e, front in zip(finished, fronts, strict=True)]
    assert any(e.on_front for e in finished) and {e.metric for e in finished} == {"top1"}
    volumes = [event.hypervolume for event in finished]
    assert volumes == sorted(volumes) and volumes[-1] > 0
    assert isinstance(events[0], RunStarted) and isinstance(events[-1], RunStopped)
    assert {event.stage for event in events if isinstance(event, StageEntered)} == {"train", "export"}


@pytest.mark.slow
def test_evaluators_are_told_the_front_of_all_that_was_recorded_before(tmp_path: Path) -> None:
    for budget in (4, 8):  # also by a run that goes on
        run(tmp_path, budget, make=MakeFake(journal=tmp_path / "journal.txt"))
    records = assert_sound(tmp_path, 8)
    lines = [line.split(maxsplit=3) for line in (tmp_path / "journal.txt").read_text().splitlines()]
    assert len(lines) == 8
    for trial, _, _, rivals in lines:
        front = pareto_front(record for record in records if record.trial < int(trial))
        assert json.loads(rivals) == [list(point(member)) for member in front]


@pytest.mark.slow
def test_a_larger_budget_goes_on_where_the_smaller_one_ended(tmp_path: Path) -> None:
    run(tmp_path / "parts", 4)
    first = RecordStore(tmp_path / "parts").all()
    run(tmp_path / "parts", 12)
    run(tmp_path / "whole", 12)
    parts, whole = assert_sound(tmp_path / "parts", 12), assert_sound(tmp_path / "whole", 12)
    assert parts[: len(first)] == first
    assert [record.candidate for record in parts] == [record.candidate for record in whole]
    assert len({record.key for record in whole}) > 5
    again = run(tmp_path / "whole", 12)
    assert again.records == whole and again.ended == "budget"


@pytest.mark.slow
def test_an_exhausted_space_ends_the_run_and_every_candidate_was_trained_once(tmp_path: Path) -> None:
    outcome = run(tmp_path, 10, space=TINY, workers=2)
    records = assert_sound(tmp_path, 3)
    assert outcome.ended == "exhausted" and "the space is exhausted" in outcome.message
    repeats = [record for record in records if record.same_as is not None]
    assert len(repeats) >= 20
    for record in repeats:
        original = records[record.same_as or 0]
        assert (record.state, record.charged, record.key) == ("cached", False, original.key)
        assert (record.quality, record.latency) == (original.quality, original.latency)
    shown = told(tmp_path)[repeats[0].trial].user_attrs
    assert shown["same_as"] == repeats[0].same_as and shown["charged"] is False


def test_a_repeat_of_a_failed_candidate_fails_free_of_charge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalesearch.search.ledger.FREE_IN_A_ROW", 3)
    space = replace(TINY, axes=(NamedAxis(name="scaling.width", axis=Choice(values=(0.5,))),))
    outcome = run(tmp_path, 2, space=space, fates={0: "stage failed"})
    records = assert_sound(tmp_path, 1)
    assert outcome.ended == "exhausted" and len(records) == 4
    assert (records[1].state, records[1].same_as) == ("failed", 0)
    assert records[1].reason == "as trial 0: export: parity 0.3 above 1e-3"
    assert outcome.front == ()


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_limits_that_nothing_meets_end_the_run(
    tmp_path: Path, sampler: SamplerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesearch.search.ledger.FREE_IN_A_ROW", 6)  # two drawn by chance, for nsga2
    outcome = run(tmp_path, 3, space=make_space(max_macs=1), sampler=sampler)
    assert outcome.ended == "exhausted" and "the limits are too tight" in outcome.message
    records = assert_sound(tmp_path, 0)
    assert len(records) == 6 and {record.state for record in records} == {"rejected"}
    assert records[0].reason.startswith("max_macs exceeded by")
    assert all(trial.constraints["max_macs"] > 0 for trial in told(tmp_path))
    assert not (tmp_path / "logs").exists()  # no worker was ever needed


def test_every_told_trial_has_the_same_constraints(tmp_path: Path) -> None:
    space = make_space(max_macs=2000, max_latency_ms=1.0)
    run(tmp_path, 6, space=space, fates={0: "stage failed"}, plan=FakePlanner(2000))
    trials = told(tmp_path)
    assert {tuple(trial.constraints) for trial in trials} == {("max_latency_ms", "max_macs")}


@dataclass(frozen=True)
class Fate:
    """What happens to a trial, and what its record must say."""

    name: str
    stage: str
    reason: str


FAULTS = (
    Fate("segfault", "export", "killed by signal 11 (SIGSEGV); last words: Fatal Python error: Segmentation fault"),
    Fate("killed", "export", "killed by signal 9 (SIGKILL), out of memory?"),
    Fate("exit", "export", "worker process exited with code 7; last words: cannot go on"),
    Fate("unpicklable", "result", "cannot be sent to the coordinator"),
    Fate("stage failed", "export", "parity 0.3 above 1e-3"),
    Fate("out of memory", "export", "out of memory"),
    Fate("nan", "quality", "top1 is nan"),
)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study whose odd trials met one fault each, and whose even ones went well."""
    folder = tmp_path_factory.mktemp("faulty")
    widths = NamedAxis(name="scaling.width", axis=Range(low=0.5, high=2.0))  # continuous: nothing repeats
    fates = {2 * i + 1: fault.name for i, fault in enumerate(FAULTS)}
    run(folder, 2 * len(FAULTS) + 1, fates=fates, space=replace(TINY, axes=(widths,)))
    return folder


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[fault.name for fault in FAULTS])
def test_a_fault_costs_exactly_its_trial(faulty: Path, number: int) -> None:
    records, fault = assert_sound(faulty, 2 * len(FAULTS) + 1), FAULTS[number]
    before, struck, after = records[2 * number : 2 * number + 3]
    assert (before.state, struck.state, after.state) == ("complete", "failed", "complete")
    assert struck.charged and not struck.feasible
    assert struck.reason.startswith(f"{fault.stage}: ") and fault.reason in struck.reason
    assert told(faulty)[struck.trial].user_attrs["reason"] == struck.reason[:200]
    assert struck.spec is not None and struck.cost is not None


def test_a_hang_is_ended_with_its_children_after_the_stage_limit(tmp_path: Path) -> None:
    run(tmp_path, 3, fates={1: "hang"}, limits=StageLimits(other_s=1.0, train_s=30.0))
    records = assert_sound(tmp_path, 3)
    assert records[1].reason == "export: no end after 1 s, killed (limit: stage_limits)"
    assert [stage.stage for stage in records[1].stages] == ["train", "export"]
    assert records[1].stages[1].seconds == pytest.approx(1.0, abs=0.9)
    assert not running("sleep", "345.6")


def test_training_has_its_own_limit(tmp_path: Path) -> None:
    make = MakeFake(seconds=1.0)
    run(tmp_path, 1, make=make, limits=StageLimits(other_s=0.9, train_s=30.0))
    assert assert_sound(tmp_path, 1)[0].state == "complete"
    run(tmp_path / "short", 1, make=make, limits=StageLimits(other_s=30.0, train_s=0.4))
    assert assert_sound(tmp_path / "short", 1)[0].reason.startswith("train: no end after 0.4 s")


def test_a_candidate_rejected_late_is_free(tmp_path: Path) -> None:
    run(tmp_path, 2, fates={1: "too large"})
    records = assert_sound(tmp_path, 2)
    assert (records[1].state, records[1].reason) == ("rejected", "file of 9 MB over the limit")


def test_a_bug_stops_the_run_with_its_traceback_and_is_not_tried_again(tmp_path: Path) -> None:
    events: list[Event] = []
    with pytest.raises(RuntimeError, match=r"trial 1[\s\S]*Traceback[\s\S]*KeyError: 'no such thing'"):
        run(tmp_path, 3, fates={1: "bug"}, on_event=events.append)
    assert isinstance(events[-1], RunStopped) and events[-1].ended == "error"
    record = RecordStore(tmp_path).load(1)
    assert record.reason == "bug: KeyError: 'no such thing'" and "Traceback" in record.warnings[0]
    run(tmp_path, 3)
    assert assert_sound(tmp_path, 3)[1] == record


def test_an_error_for_the_user_stops_the_run_and_leaves_the_trial_to_be_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the data set is gone"):
        run(tmp_path, 3, fates={1: "config error"})
    assert [trial.state.name for trial in told(tmp_path)] == ["COMPLETE", "RUNNING"]
    run(tmp_path, 3)
    assert_sound(tmp_path, 3)


def test_a_candidate_that_cannot_be_planned_is_free(tmp_path: Path) -> None:
    planner = FakePlanner()
    verdicts = iter([StageFailed("prune", "nothing is left"), CandidateRejected("1 px is too small")])

    def plan(candidate: Candidate) -> Plan:
        for verdict in verdicts:
            raise verdict
        return planner(candidate)

    run(tmp_path, 2, plan=plan)
    records = assert_sound(tmp_path, 2)
    assert [(r.state, r.reason) for r in records[:2]] == [
        ("failed", "prune: nothing is left"),
        ("rejected", "1 px is too small"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "error", "match"),
    [
        ("config error", ConfigError, "no such folder: images"),
        ("bug", RuntimeError, "start-up bug"),
        ("exit", ScalesearchError, r"do not start \(3 times\): worker process exited with code 3"),
        ("hang", ScalesearchError, r"do not start \(3 times\): no end after 0.5 s"),
    ],
)
def test_workers_that_do_not_start_stop_the_run(tmp_path: Path, start: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        run(tmp_path, 2, make=MakeFake(start=start), limits=StageLimits(other_s=0.5 if start == "hang" else 60.0))
    assert RecordStore(tmp_path).all() == ()  # no trial's fault


def test_two_coordinators_never_run_one_study(tmp_path: Path) -> None:
    with (
        only_coordinator(tmp_path),
        pytest.raises(ConfigError, match=rf"another run \(process {os.getpid()}\) works on"),
    ):
        run(tmp_path, 1)
    assert run(tmp_path, 1).charged == 1


def test_a_corrupt_record_stops_the_run_by_name_and_nothing_is_lost(tmp_path: Path) -> None:
    run(tmp_path, 2)
    path = RecordStore(tmp_path).path(1)
    whole = path.read_text()
    path.write_text(whole[:100])
    with pytest.raises(ConfigError, match=r"000001\.json"):
        run(tmp_path, 3)
    assert path.read_text() == whole[:100]
    path.write_text(whole)
    run(tmp_path, 3)
    assert_sound(tmp_path, 3)


def test_a_lost_study_file_is_made_again_from_the_records(tmp_path: Path) -> None:
    run(tmp_path / "lost", 4, fates={2: "stage failed"})
    before = assert_sound(tmp_path / "lost", 4)
    parameters = [trial.params for trial in told(tmp_path / "lost")]
    for file in (tmp_path / "lost").glob("study.sqlite3*"):
        file.unlink()
    run(tmp_path / "lost", 5)
    after = assert_sound(tmp_path / "lost", 5)
    assert after[: len(before)] == before
    assert [trial.params for trial in told(tmp_path / "lost")][: len(parameters)] == parameters


def test_the_dashboard_finds_notes_and_a_figure(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    run(tmp_path, 2, fates={0: "stage failed"}, listener=DashboardListener(tmp_path, TINY, ["tpe"]))
    storage = open_storage(tmp_path / STUDY_FILE)
    kept = storage.get_study_system_attrs(storage.get_study_id_from_name(STUDY_NAME))
    storage.engine.dispose()
    assert sum("note" in key for key in kept) >= 3  # the study's and one a trial
    assert any(FRONT_FIGURE in key for key in kept)


@pytest.mark.parametrize(
    "name", ["a?b", *(pytest.param(name, marks=pytest.mark.slow) for name in ("a%41b", "a#b", "ä b"))]
)
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    run(tmp_path / name, 1)
    assert_sound(tmp_path / name, 1)
    assert (tmp_path / name / STUDY_FILE).exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_events_are_values(tmp_path: Path) -> None:
    events: list[Event] = []
    run(tmp_path, 1, on_event=events.append)
    assert all(dataclasses.is_dataclass(event) and hash(event) is not None for event in events)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_candidates_that_use_an_earlier_ones_weights_are_free(tmp_path: Path, workers: int) -> None:
    outcome = run(tmp_path, 5, fates={1: "sibling", 2: "sibling", 4: "sibling"}, workers=workers)
    records = assert_sound(tmp_path, 5)
    assert (outcome.ended, outcome.charged) == ("budget", 5)
    assert [r.trial for r in records if r.state == "complete" and not r.charged] == [1, 2, 4]


@pytest.mark.slow
def test_twenty_in_a_row_that_need_no_training_end_the_run(tmp_path: Path) -> None:
    space = make_space(40)  # far more candidates than are asked
    outcome = run(tmp_path, 5, space=space, fates={0: "good", **dict.fromkeys(range(1, 60), "sibling")})
    assert outcome.ended == "exhausted"
    assert outcome.charged == 1
    assert "used its weights" in outcome.message
    assert sum(record.state == "complete" for record in outcome.records) <= 1 + FREE_IN_A_ROW


def test_a_continued_trial_is_charged_though_its_weights_are_there(tmp_path: Path) -> None:
    make = MakeFake(fates=((0, "config error"),))
    with pytest.raises(ConfigError):  # the trial stays RUNNING
        run(tmp_path, 2, make=make)
    outcome = run(tmp_path, 2, fates={0: "sibling"})
    assert_sound(tmp_path, 2)
    assert [record.trial for record in outcome.records if record.charged] == [0, 1]
