"""Interrupts, kills, siblings and narrowing: what a run still owes after it was cut off or has changed its mind."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import optuna
import psutil
import pytest
from fake_evaluators import MakeFake, make_space
from killed_coordinator import SPACE as KILLED_SPACE
from study_runs import assert_sound, run, told

from scalesearch.errors import ScalesearchError
from scalesearch.records.store import RecordStore
from scalesearch.search.events import (
    Event,
    Narrowed,
    RunStarted,
    RunStopped,
    StageEntered,
    StudyOutcome,
)
from scalesearch.search.precisions import SIBLING_TRIES, TRIES
from scalesearch.search.samplers import make_sampler
from scalesearch.search.siblings import SIBLING_OF
from scalesearch.search.storage import opened_study
from scalesearch.search.time_limit import TimeLimit
from scalesearch.spaces.suggest import suggest, trial_parameters
from scalesearch.values.candidate import Candidate, Precision
from scalesearch.values.record import TrialRecord
from scalesearch.values.settings import SamplerName


def test_interrupt_ends_cleanly_and_the_next_run_goes_on(tmp_path: Path) -> None:
    events: list[Event] = []
    before = signal.getsignal(signal.SIGINT)  # ignored, where a script started the tests in the background

    def interrupt(event: Event) -> None:
        events.append(event)
        # Once: a second Ctrl-C acts as always, and on a busy machine both stages are heard of in one go.
        if isinstance(event, StageEntered) and event.trial == 2 and event.stage == "train":
            os.kill(os.getpid(), signal.SIGINT)

    outcome = run(tmp_path, 4, make=MakeFake(seconds=0.3), on_event=interrupt)
    assert outcome.ended == "interrupted" and outcome.charged == 2
    assert signal.getsignal(signal.SIGINT) is before
    assert isinstance(events[-1], RunStopped)
    run(tmp_path, 4, on_event=events.append)
    assert_sound(tmp_path, 4)
    assert next(e for e in reversed(events) if isinstance(e, RunStarted)).continued == 1


def test_a_run_outside_the_main_thread_leaves_signals_alone(tmp_path: Path) -> None:
    outcomes: list[StudyOutcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(run(tmp_path, 1)))
    thread.start()
    thread.join()
    assert outcomes[0].charged == 1


@pytest.mark.slow
@pytest.mark.parametrize(("siblings", "sampler"), [(False, "tpe"), (False, "growth"), (True, "growth")])
def test_kill_9_of_the_coordinator_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, siblings: bool, sampler: SamplerName
) -> None:
    budget, killed = 8, tmp_path / "killed"
    for moment, number in [("asked", 0), ("in a stage", 1), ("saved", 3), ("started", 5)]:
        process = coordinator(killed, budget, moment, number, sampler, siblings)
        assert process.returncode == -signal.SIGKILL, process.stderr
        assert_no_worker_survives(killed / "journal.txt")
    assert coordinator(killed, budget, "never", 0, sampler, siblings).returncode == 0
    records = assert_sound(killed, budget)
    if not siblings:  # which siblings are still wanted after a kill is read off the front, so their order may differ
        run(tmp_path / "whole", budget, space=KILLED_SPACE, sampler=sampler)
        whole = assert_sound(tmp_path / "whole", budget)
        assert [record.candidate for record in records] == [record.candidate for record in whole]
    trained = Counter(int(line.split()[0]) for line in (killed / "journal.txt").read_text().splitlines())
    evaluated = {
        record.trial for record in records if record.state in ("complete", "failed") and record.same_as is None
    }
    assert set(trained) == evaluated
    assert {record.trial for record in records if record.charged} <= evaluated
    # At most the two that were killed while with a worker were begun twice.
    assert sum(trained.values()) - len(trained) <= 2


def assert_no_worker_survives(journal: Path) -> None:
    """Every worker that ever wrote into the journal is gone, or soon is."""
    text = journal.read_text() if journal.exists() else ""
    for pid in {int(line.split()[1]) for line in text.splitlines()}:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker = psutil.Process(pid)
            for _ in range(100):
                if worker.status() == psutil.STATUS_ZOMBIE:
                    break
                threading.Event().wait(0.02)
            else:
                pytest.fail(f"worker {pid} survived its coordinator")


def coordinator(
    folder: Path, budget: int, moment: str, number: int, sampler: SamplerName, siblings: bool = False
) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("killed_coordinator.py")
    return subprocess.run(
        [sys.executable, str(script), str(folder), str(budget), moment, str(number), str(int(siblings)), sampler],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_kill_9_of_a_worker_costs_its_trial_only(tmp_path: Path) -> None:
    journal = tmp_path / "journal.txt"

    def kill(event: Event) -> None:
        if isinstance(event, StageEntered) and event.stage == "export" and event.trial in (1, 3):
            lines = wait_for(journal, f"{event.trial} ")
            os.kill(int(lines.split()[1]), signal.SIGKILL)

    run(tmp_path, 5, make=MakeFake(journal=journal, fates=((1, "wait"), (3, "wait"))), on_event=kill, workers=2)
    records = assert_sound(tmp_path, 5)
    assert {record.trial for record in records if record.state == "failed"} == {1, 3}
    assert records[1].reason == "export: worker process killed by signal 9 (SIGKILL), out of memory?"


def wait_for(journal: Path, start: str) -> str:
    for _ in range(200):
        lines = journal.read_text().splitlines() if journal.exists() else []
        if found := next((line for line in lines if line.startswith(start)), ""):
            return found
        threading.Event().wait(0.01)
    raise AssertionError(start)


@pytest.mark.slow
def test_siblings_of_candidates_near_the_front_are_full_trials_and_free(tmp_path: Path) -> None:
    outcome = run(tmp_path, 6, siblings=True)
    records = assert_sound(tmp_path, 6)
    siblings = [record for record in records if record.sibling_of is not None]
    assert siblings and not any(record.charged for record in siblings)
    by_trial = {record.trial: record for record in records}
    for record in siblings:
        origin = by_trial[record.sibling_of or 0]
        assert origin.charged
        assert record.candidate.scaling == origin.candidate.scaling
        assert record.candidate.quantization.precision != origin.candidate.quantization.precision
    # A front member was looked at in every precision of the space.
    for member in outcome.front:
        precisions = {
            record.candidate.quantization.precision
            for record in records
            if record.candidate.scaling == member.candidate.scaling and record.state == "complete"
        }
        assert precisions == {"fp32", "fp16", "int8"}
    trials = told(tmp_path)
    assert all(trials[record.trial].user_attrs["sibling_of"] == record.sibling_of for record in siblings)


@pytest.mark.slow
def test_a_resumed_run_evaluates_the_siblings_that_are_missing(tmp_path: Path) -> None:
    run(tmp_path, 4)
    records = RecordStore(tmp_path).all()
    assert not any(record.sibling_of is not None for record in records)
    run(tmp_path, 4, siblings=True)
    assert_sound(tmp_path, 4)
    assert any(record.sibling_of is not None for record in RecordStore(tmp_path).all())


@pytest.mark.slow
def test_a_resumed_run_evaluates_siblings_of_what_is_only_near_the_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, 4)
    newest = [record.trial for record in RecordStore(tmp_path).all() if record.charged][-1]
    monkeypatch.setattr("scalesearch.search.coordinator.pareto_front", lambda _: ())
    monkeypatch.setattr("scalesearch.search.coordinator.near_front", lambda record, _: record.sibling_of is None)
    run(tmp_path, 4, siblings=True)
    origins = {record.sibling_of for record in RecordStore(tmp_path).all() if record.sibling_of is not None}
    assert origins == {newest}, "siblings come first: those of older ones were evaluated or given up"


@pytest.mark.slow
def test_a_precision_that_never_paid_is_given_up_once_and_said(tmp_path: Path) -> None:
    events: list[Event] = []
    run(tmp_path, 30, make=MakeFake(no_gain="fp16"), adaptive=True, on_event=events.append, sampler="random")
    (narrowed,) = [event for event in events if isinstance(event, Narrowed)]
    assert (narrowed.precision, narrowed.tries) == ("fp16", TRIES)
    turned_down = [record for record in RecordStore(tmp_path).all() if record.reason.startswith("adaptive: fp16")]
    assert turned_down and all(record.state == "rejected" and not record.charged for record in turned_down)
    tried = [
        r for r in RecordStore(tmp_path).all() if r.state == "complete" and r.candidate.quantization.precision == "fp16"
    ]
    assert len(tried) == TRIES
    # Reversible: without the flag it is asked again.
    run(tmp_path, 40, make=MakeFake(no_gain="fp16"), sampler="random")
    later = [
        r for r in RecordStore(tmp_path).all() if r.state == "complete" and r.candidate.quantization.precision == "fp16"
    ]
    assert len(later) > TRIES


def test_siblings_do_without_a_precision_that_never_paid(tmp_path: Path) -> None:
    events: list[Event] = []
    run(tmp_path, 12, make=MakeFake(no_gain="fp16"), siblings=True, on_event=events.append)
    (narrowed,) = [event for event in events if isinstance(event, Narrowed)]
    assert (narrowed.precision, narrowed.siblings) == ("fp16", True)
    assert narrowed.tries >= SIBLING_TRIES
    siblings = [record for record in RecordStore(tmp_path).all() if record.sibling_of is not None]
    halves = [record for record in siblings if record.candidate.quantization.precision == "fp16"]
    assert 0 < len(halves) < len(siblings) / 2, "siblings have two precisions each until one is given up"


@pytest.mark.slow  # the same run of 40 as the one above, without the flag
def test_without_adaptive_nothing_is_given_up(tmp_path: Path) -> None:
    events: list[Event] = []
    run(tmp_path, 40, make=MakeFake(no_gain="fp16"), on_event=events.append, sampler="random")
    assert not any(isinstance(event, Narrowed) for event in events)


@pytest.mark.slow
def test_siblings_do_not_shorten_the_random_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, str] = {}

    def heard(name: SamplerName, *, seed: int, trial: int, workers: int) -> optuna.samplers.BaseSampler:
        asked[trial] = name
        return make_sampler(name, seed=seed, trial=trial, workers=workers)

    monkeypatch.setattr("scalesearch.search.asking.make_sampler", heard)
    monkeypatch.setattr("scalesearch.search.asking.BY_CHANCE_AFTER", 1000)
    for budget in (4, 14):  # continued in the middle of its start
        run(tmp_path, budget, siblings=True)
    siblings = {record.trial for record in RecordStore(tmp_path).all() if record.sibling_of is not None}
    names = [name for trial, name in sorted(asked.items()) if trial not in siblings]
    assert len(siblings) >= 4 and len(names) > 11
    assert names[:10] == ["random"] * 10
    assert set(names[10:]) == {"tpe"}


def leave_behind(folder: Path, candidate: Candidate, sibling_of: int | None = None) -> None:
    """A trial that a killed run had asked and nobody answered."""
    with opened_study(folder, url="") as opened:
        attributes = {} if sibling_of is None else {SIBLING_OF: sibling_of}
        opened.study.enqueue_trial(trial_parameters(candidate, make_space()), user_attrs=attributes)
        suggest(opened.study.ask(), make_space())


@pytest.mark.slow
def test_with_the_budget_used_up_nothing_is_left_running(tmp_path: Path) -> None:
    run(tmp_path, 4, sampler="random")
    records = RecordStore(tmp_path).all()
    first, known = records[1].candidate, {record.candidate for record in records}
    others = iter(
        candidate
        for width in (0.25, 0.5, 1.0, 2.0)
        for candidate in (replace(first, scaling=replace(first.scaling, width=width)),)
        if candidate not in known
    )
    precision: Precision = "fp16" if first.quantization.precision == "fp32" else "fp32"
    sibling = replace(first, quantization=replace(first.quantization, precision=precision))
    number = len(records)
    leave_behind(tmp_path, first)  # equal to one that was running: it was waiting for that one
    leave_behind(tmp_path, sibling, sibling_of=1)
    leave_behind(tmp_path, next(others))
    outcome = run(tmp_path, 4, sampler="random")
    assert outcome.ended == "budget"
    repeat, own, lost = assert_sound(tmp_path, 4)[number : number + 3]
    assert (repeat.same_as, repeat.charged) == (1, False)
    assert (own.state, own.sibling_of, own.charged) in (("complete", 1, False), ("cached", 1, False))
    assert (lost.state, lost.charged) == ("failed", False) and "budget is used up" in lost.reason
    # It is known to nothing else: the same candidate may be trained by a later run.
    run(tmp_path, 6, sampler="random")
    assert_sound(tmp_path, 6)


def test_a_candidate_left_behind_is_gone_on_with_where_the_budget_has_room(tmp_path: Path) -> None:
    run(tmp_path, 2, sampler="random")
    records = RecordStore(tmp_path).all()
    number, known = len(records), {record.candidate for record in records}
    scalings = [replace(records[1].candidate.scaling, width=width) for width in (0.5, 1.0, 1.5, 2.0)]
    leave_behind(tmp_path, next(c for s in scalings if (c := replace(records[1].candidate, scaling=s)) not in known))
    run(tmp_path, 3, sampler="random")
    assert assert_sound(tmp_path, 3)[number].state == "complete"


def test_a_candidate_left_behind_has_the_time_of_a_training_though_siblings_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, 2, sampler="random")
    records = RecordStore(tmp_path).all()
    known, scaling = {record.candidate for record in records}, records[1].candidate.scaling
    own = (replace(records[1].candidate, scaling=replace(scaling, width=width)) for width in (0.5, 1.0, 1.5, 2.0))
    leave_behind(tmp_path, next(each for each in own if each not in known))
    asked = list[bool]()

    def is_up(_limit: TimeLimit, _records: object, *, trained: bool) -> bool:
        asked.append(trained)
        return False

    monkeypatch.setattr(TimeLimit, "is_up", is_up)
    run(tmp_path, 4, sampler="random", siblings=True, max_time_s=1000)
    assert asked[0], "it comes first"
    assert not all(asked), "a sibling has the time of one"


def test_a_full_disk_stops_the_run_with_words_and_the_trial_is_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(ScalesearchError, match=r"(?s)disk refused .*No space left.*same command"):
        run(tmp_path, 3, fates={1: "disk full"})
    assert [record.trial for record in RecordStore(tmp_path).all()] == [0]
    run(tmp_path, 3)
    assert_sound(tmp_path, 3)


def test_what_cannot_be_recorded_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = RecordStore.save

    def full(store: RecordStore, record: TrialRecord) -> Path:
        if record.trial == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(store, record)

    monkeypatch.setattr(RecordStore, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, 3)
    assert [trial.state.is_finished() for trial in told(tmp_path)] == [True, False]
    monkeypatch.undo()
    run(tmp_path, 3)
    assert_sound(tmp_path, 3)
