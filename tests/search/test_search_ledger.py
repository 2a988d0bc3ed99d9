"""The trials of a study: what is charged, what is answered from records, and when it is no use to ask for more."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_evaluators import FakePlanner, make_space
from optuna.trial import create_trial

from scalesearch.records.store import RecordStore
from scalesearch.search import ledger as module
from scalesearch.search.ledger import GIVEN_UP, Asked, Ledger
from scalesearch.spaces.suggest import cheapest
from scalesearch.values.record import MeasuredTrial, StageTime


def test_equal_candidates_are_answered_from_the_first_record_of_their_key(
    make_record: Callable[..., MeasuredTrial], tmp_path: Path
) -> None:
    first = replace(make_record(0), key="a")
    for record in (first, replace(make_record(1), key="a", same_as=0, charged=False), replace(make_record(2), key="")):
        RecordStore(tmp_path).save(record)
    ledger = Ledger(tmp_path, budget=2)
    assert ledger.finished("a") == first and ledger.finished("") is None
    assert ledger.charged == 2 and not ledger.has_room
    assert Ledger(tmp_path, budget=3).has_room


def test_a_saved_record_is_on_disk_before_it_counts(make_record: Callable[..., MeasuredTrial], tmp_path: Path) -> None:
    ledger, record = Ledger(tmp_path, budget=1), make_record(0)
    ledger.save(record)
    assert RecordStore(tmp_path).all() == (record,) and ledger.charged == 0
    ledger.enter(record)
    assert ledger.charged == 1 and ledger.finished(record.key) == record


def test_a_study_that_was_made_longer_has_other_members_and_counts_its_trainings_as_parts(
    make_record: Callable[..., MeasuredTrial], tmp_path: Path
) -> None:
    record = make_record(0)
    brief = replace(record, training=replace(record.training, steps=240, new_steps=240))
    brief = replace(brief, candidate=replace(brief.candidate, recipe=replace(brief.candidate.recipe, steps=240)))
    RecordStore(tmp_path).save(brief)
    RecordStore(tmp_path).make_longer(0)
    assert Ledger(tmp_path, budget=2).charged == 1 and brief.feasible
    for full_updates in (960, 480, 0):  # the greatest stays
        RecordStore(tmp_path).make_longer(full_updates)
        (kept,) = RecordStore(tmp_path).all()
        assert kept == replace(brief, full_updates=960)
    assert kept.trained_in_part and not kept.feasible
    assert Ledger(tmp_path, budget=2).charged == 0.25


def test_siblings_say_nothing_about_how_much_of_the_space_is_left(
    make_record: Callable[..., MeasuredTrial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FREE_IN_A_ROW", 2)
    ledger, free = Ledger(tmp_path, budget=9), replace(make_record(1), charged=False, same_as=0)
    for _ in range(3):
        ledger.count(replace(free, sibling_of=0))
    assert not ledger.used_up
    ledger.count(free)
    ledger.count(replace(free, state="rejected", stages=()))
    assert ledger.used_up and (ledger.free_in_a_row, ledger.repeats_in_a_row) == (2, 0)
    ledger.count(make_record(2))
    assert not ledger.used_up


def test_candidates_that_had_to_be_measured_count_less_than_those_that_were_free(
    make_record: Callable[..., MeasuredTrial], tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path, budget=9)
    slow = replace(make_record(1), state="rejected", charged=False, stages=(StageTime(stage="untrained", seconds=2.0),))
    for _ in range(99):
        ledger.count(slow)
    assert not ledger.used_up
    for _ in range(2):
        ledger.count(slow)
    assert ledger.used_up


def test_new_measurements_of_stored_weights_end_a_run_late_and_teach_the_sampler(
    make_record: Callable[..., MeasuredTrial], tmp_path: Path
) -> None:
    """As in a space of precisions and calibrations alone, where the first training is the only one."""
    ledger, stages = Ledger(tmp_path, budget=9), (StageTime(stage="quality", seconds=2.0),)
    new = replace(make_record(1), charged=False, stages=stages)
    for trial in range(20):
        ledger.count(new)
        ledger.enter(replace(new, trial=trial))
    assert not ledger.used_up and ledger.repeats_in_a_row == 0
    _, message = ledger.ending(interrupted=False, owed=0)
    assert message.startswith("there is nothing left to train (run again to measure more): of the last 20 candidates")
    for _ in range(81):
        ledger.count(new)
    assert ledger.used_up
    ledger.go_on()
    assert not ledger.used_up, "the user asks for more"
    ledger.count(replace(new, state="failed"))
    assert ledger.repeats_in_a_row == 1, "Optuna learns nothing from a trial that failed"


def test_the_ending_tells_a_tight_limit_from_a_used_up_space(
    make_record: Callable[..., MeasuredTrial], tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path, budget=1)
    for trial in range(3):
        ledger.enter(replace(make_record(trial), state="rejected" if trial else "cached", charged=False))
    ended, message = ledger.ending(interrupted=False, owed=0)
    assert ended == "exhausted" and message.startswith("the limits are too tight: of the last 3 candidates")
    assert ledger.ending(interrupted=True, owed=1)[0] == "interrupted"
    assert ledger.ending(short_of="time", interrupted=False, owed=0) == (
        "time",
        "the time is up at 0 of 1; run again to go on",
    )
    assert ledger.ending(short_of="budget", interrupted=False, owed=0) == (
        "budget",
        "0 candidates trained: the rest of the budget suffices for no other",
    )
    ledger.enter(make_record(5))
    assert ledger.ending(interrupted=False, owed=1) == ("budget", "1 candidates trained")
    assert ledger.ending(interrupted=True, owed=1)[0] == "interrupted"


def test_a_branch_of_a_stored_trunk_is_charged_by_its_share(
    make_record: Callable[..., MeasuredTrial], tmp_path: Path
) -> None:
    ledger, full = Ledger(tmp_path, budget=2), make_record(0)
    ledger.enter(replace(full, training=replace(full.training, steps=30, new_steps=30)))
    for trial in (1, 2):
        ledger.enter(replace(full, trial=trial, training=replace(full.training, steps=30, new_steps=10)))
    assert ledger.charged == pytest.approx(1 + 2 / 3) and ledger.has_room
    ledger.enter(replace(full, trial=3, training=replace(full.training, steps=30, new_steps=10)))
    assert ledger.charged == 2 and not ledger.has_room
    assert ledger.ending(interrupted=False, owed=0) == (
        "budget",
        "4 candidates trained with the updates of 2.0 full trainings",
    )


def test_a_charged_trial_whose_updates_are_not_known_is_a_full_training(
    make_record: Callable[..., MeasuredTrial], tmp_path: Path
) -> None:
    full = make_record(0)
    record = replace(full, training=replace(full.training, new_steps=None))
    assert record.charge == 1
    assert replace(full, training=replace(full.training, new_steps=0)).charge == 0
    failed = replace(record.without_measurement(), training=None, state="failed")
    assert replace(failed, most_updates=full.candidate.recipe.steps // 3).charge == pytest.approx(1 / 3, abs=0.01)
    assert replace(record, charged=False).charge == 0
    assert replace(record.without_measurement(), training=None, state="failed").charge == 1


@pytest.mark.parametrize(("full_updates", "left"), [(0, 8 - 160 / 480), (960, 8 - 160 / 960)])
def test_a_running_branch_of_a_stored_trunk_reserves_only_its_share(
    tmp_path: Path, full_updates: int, left: float
) -> None:
    ledger, plan = Ledger(tmp_path, budget=8), FakePlanner(full_updates=full_updates)
    candidate = cheapest(make_space())
    work = plan(replace(candidate, recipe=replace(candidate.recipe, steps=480)))
    trial = create_trial(values=[0.0])
    ledger.running[0] = Asked(trial=trial, plan=work, shared_updates=320)  # type: ignore[arg-type]
    assert ledger.left == pytest.approx(left)
    ledger.running[0] = Asked(trial=trial, plan=work, shared_updates=320, pays=False)  # type: ignore[arg-type]
    assert ledger.left == 8


def test_a_precision_that_was_given_up_is_open_to_a_run_that_does_not_give_up(
    make_record: Callable[..., MeasuredTrial], tmp_path: Path
) -> None:
    record = replace(make_record(0), key="a", state="rejected", charged=False, reason=f"{GIVEN_UP}fp16 never paid")
    RecordStore(tmp_path).save(record)
    ledger = Ledger(tmp_path, budget=2)
    assert ledger.records and not ledger.is_known("a")
    ledger.enter(replace(record, trial=1, reason="max_macs"))
    assert ledger.is_known("a")
