"""The charge of a trial that a killed run had begun, whose weights may be on the disk already."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_evaluators import FakePlanner, make_space
from study_runs import run

from scalesearch.execution.worker import Evaluated
from scalesearch.records.store import RecordStore
from scalesearch.search.fates import charged_at_most, gone_on_with, paid_for_trunk, record_of
from scalesearch.search.ledger import Asked
from scalesearch.search.storage import opened_study
from scalesearch.spaces.suggest import cheapest, suggest, trial_parameters
from scalesearch.values.candidate import Candidate, Quantization
from scalesearch.values.plan import Plan
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.space import Choice, NamedAxis
from scalesearch.values.training_length import trunk_steps


@pytest.mark.parametrize(
    ("shared", "new_steps", "charge"),
    [
        (0, 0, 1.0),  # killed while it was measured
        (0, 100, 1.0),  # killed in its branch: the trunk is its own
        (200, 0, 1 / 3),
        (200, 100, 1 / 3),
        (200, 300, 1.0),  # the other trial's trunk was gone
        (150, 0, 0.5),  # the other trial's trunk was shorter
    ],
)
@pytest.mark.parametrize("aware", [0, 40])
def test_the_updates_of_the_killed_run_are_charged_too(
    make_record: Callable[..., MeasuredTrial], shared: int, new_steps: int, charge: float, aware: int
) -> None:
    record = make_record(3)
    training = replace(record.training, steps=300, new_steps=new_steps, weights_reused=not new_steps)
    candidate = replace(record.candidate, quantization=Quantization(precision="int8", qat_steps=aware))
    record = replace(record, candidate=candidate, charged=bool(new_steps), training=training)
    plan = replace(FakePlanner()(candidate), trunk_key="trunk", branch_updates=100 - aware)
    assert (candidate.recipe.steps, trunk_steps(candidate.recipe)) == (300, 200)

    assert gone_on_with(record, plan, shared_updates=shared).charge == charge


@pytest.mark.parametrize(("made", "paid"), [(300, True), (101, True), (100, False), (0, False), (None, True)])
def test_who_paid_for_a_trunk_was_charged_more_than_its_branch(
    make_record: Callable[..., MeasuredTrial], made: int | None, paid: bool
) -> None:
    record = replace(make_record(3), charged=True)
    trained = replace(record, training=replace(record.training, steps=300, new_steps=made))
    assert paid_for_trunk(trained) == paid
    assert not paid_for_trunk(replace(trained, charged=False))
    failed = replace(record.without_measurement(), training=None, state="failed", most_updates=made)
    assert paid_for_trunk(failed) == paid


def test_a_failed_trial_is_charged_fully(make_record: Callable[..., MeasuredTrial]) -> None:
    record = replace(make_record(3).without_measurement(), training=None, charged=False)
    assert gone_on_with(record, FakePlanner()(record.candidate), shared_updates=200).charge == 1.0


@pytest.mark.parametrize(("shared", "stored", "charge"), [(0, False, 1.0), (200, False, 1 / 3), (200, True, 0.0)])
def test_a_failed_trial_is_charged_what_it_can_have_trained(
    make_record: Callable[..., MeasuredTrial], shared: int, stored: bool, charge: float
) -> None:
    record = make_record(3)
    candidate = replace(record.candidate, recipe=replace(record.candidate.recipe, steps=300))
    failed = replace(record.without_measurement(), candidate=candidate, training=None, state="failed", charged=True)
    plan = FakePlanner()(candidate)
    assert charged_at_most(failed, plan, shared_updates=shared, stored=stored).charge == pytest.approx(charge)
    trained = replace(failed, training=record.training)
    assert charged_at_most(trained, plan, shared_updates=shared, stored=stored) == trained
    assert charged_at_most(record, plan, shared_updates=shared, stored=stored) == record


@pytest.mark.parametrize(("new_steps", "charge"), [(0, 0.0), (100, 1 / 3), (None, 1.0)])
def test_a_trial_without_a_finite_score_is_charged_what_it_trained(
    make_record: Callable[..., MeasuredTrial], new_steps: int | None, charge: float
) -> None:
    record = make_record(3)
    plan = FakePlanner()(record.candidate)
    training = replace(record.training, steps=300, new_steps=new_steps, weights_reused=new_steps == 0)
    record = replace(
        record,
        key=plan.key,
        charged=new_steps != 0,
        training=training,
        quality=replace(record.quality, score=float("nan")),
    )
    failed = record_of(Evaluated(trial=3, record=record), plan, ())
    assert (failed.state, failed.quality) == ("failed", None) and failed.reason.startswith("quality: ")
    assert failed.charged is record.charged and failed.charge == pytest.approx(charge)


def test_no_updates_are_no_charge(make_record: Callable[..., MeasuredTrial]) -> None:
    """Earlier versions stored such records as charged."""
    record = make_record(3)
    record = replace(record, charged=True, training=replace(record.training, new_steps=0))
    assert record.charge == 0.0


@pytest.mark.slow
def test_a_precision_that_fails_on_stored_weights_costs_nothing(tmp_path: Path) -> None:
    """The second trial has the weights of the first, and another key."""

    def plan(candidate: Candidate) -> Plan:
        return replace(FakePlanner()(candidate), shape_key="one", spec=FakePlanner()(cheapest(make_space())).spec)

    run(tmp_path, 2, fates={1: "stage failed"}, sampler="random", plan=plan)
    records = RecordStore(tmp_path).all()
    assert [record.state for record in records[:2]] == ["complete", "failed"]
    assert [record.charge for record in records[:2]] == [1.0, 0.0]


def test_a_rejected_trial_is_not_charged_for_being_continued(make_record: Callable[..., MeasuredTrial]) -> None:
    record = replace(make_record(3).without_measurement(), state="rejected", training=None, charged=False)
    assert gone_on_with(record, FakePlanner()(record.candidate), shared_updates=0) == record


def _one_trunk(candidate: Candidate) -> Plan:
    return replace(FakePlanner()(candidate), trunk_key="trunk", branch_updates=0)


def _cut_from_one(candidate: Candidate) -> Plan:
    """Return the plan of a network of its own width, cut from the trunk that all share."""
    plan = _one_trunk(candidate)
    stem = replace(plan.spec.stem, channels=int(32 * candidate.scaling.width))
    return replace(plan, spec=replace(plan.spec, stem=stem), cut_from=plan.spec)


def _told_shared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The updates that others made of the trunks of trials that go on, in the order in which they end."""
    told = list[int]()

    def heard(record: MeasuredTrial, plan: Plan, *, shared_updates: int) -> object:
        told.append(shared_updates)
        return gone_on_with(record, plan, shared_updates=shared_updates)

    monkeypatch.setattr("scalesearch.search.coordinator.gone_on_with", heard)
    return told


def _go_on_with_a_third(folder: Path, plan: Callable[[Candidate], Plan]) -> None:
    """Leave a third trial behind, as a killed run does, which differs from the second in its width; then go on."""
    candidate = RecordStore(folder).all()[1].candidate
    scaling = replace(candidate.scaling, width=1.25 if candidate.scaling.width != 1.25 else 1.5)
    with opened_study(folder, url="") as opened:
        opened.study.enqueue_trial(trial_parameters(replace(candidate, scaling=scaling), make_space()))
        suggest(opened.study.ask(), make_space())
    run(folder, 3, sampler="random", plan=plan)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "shared"),
    [(_one_trunk, 200), (_cut_from_one, 200), (FakePlanner(), 0)],
    ids=["one", "cut", "none"],
)
def test_a_run_looks_for_another_trial_of_the_same_trunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Callable[[Candidate], Plan], shared: int
) -> None:
    told = _told_shared(monkeypatch)
    run(tmp_path, 2, sampler="random", plan=plan)
    _go_on_with_a_third(tmp_path, plan)
    assert told == [shared]


@pytest.mark.slow
@pytest.mark.parametrize(("made", "shared"), [((100, 100), 0), ((100, 300), 200)], ids=["nobody", "another"])
def test_a_trunk_is_charged_to_who_goes_on_unless_another_paid_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: tuple[int, int], shared: int
) -> None:
    """Who waited for the trunk was charged its branch alone and ended first; who trained it was killed while timed."""
    told = _told_shared(monkeypatch)
    run(tmp_path, 2, sampler="random", plan=_one_trunk)
    store = RecordStore(tmp_path)
    for record, new_steps in zip(store.all(), made, strict=True):
        assert record.training
        store.save(replace(record, training=replace(record.training, steps=300, new_steps=new_steps)))
    _go_on_with_a_third(tmp_path, _one_trunk)
    assert told == [shared]


@pytest.mark.slow
@pytest.mark.parametrize(("late", "most"), [(False, 300), (True, 100)], ids=["with the first", "after it"])
def test_a_failed_trial_is_charged_a_trunk_that_was_not_there_when_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool, most: int
) -> None:
    """The first trial is charged its branch alone: it used a trunk that another one trained."""

    def asked(**given: object) -> Asked:
        return Asked(**given | ({} if late else {"shared_updates": 0}))  # type: ignore[arg-type]

    monkeypatch.setattr("scalesearch.search.coordinator.Asked", asked)
    widths = tuple(named for named in make_space().axes if named.name == "scaling.width")
    space = replace(make_space(), axes=widths)
    run(tmp_path, 1, sampler="random", plan=_one_trunk, space=space)
    store = RecordStore(tmp_path)
    (record,) = store.all()
    assert record.training
    store.save(replace(record, training=replace(record.training, steps=300, new_steps=100)))
    run(tmp_path, 1, fates={1: "stage failed"}, sampler="random", plan=_one_trunk, space=space)
    failed = store.all()[1]
    assert (failed.state, failed.most_updates) == ("failed", most)


@pytest.mark.slow
@pytest.mark.parametrize(("plan", "shared"), [(_one_trunk, 200), (FakePlanner(), 0)], ids=["one", "none"])
def test_a_trial_that_begins_knows_what_finished_ones_share_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Callable[[Candidate], Plan], shared: int
) -> None:
    begun = list[int]()

    def asked(**given: object) -> Asked:
        begun.append(int(str(given.get("shared_updates", -1))))
        return Asked(**given)  # type: ignore[arg-type]

    monkeypatch.setattr("scalesearch.search.coordinator.Asked", asked)
    run(tmp_path, 1, sampler="random", plan=plan)
    candidate = RecordStore(tmp_path).all()[0].candidate
    with opened_study(tmp_path, url="") as opened:
        wider = replace(candidate, scaling=replace(candidate.scaling, width=1.25))
        opened.study.enqueue_trial(trial_parameters(wider, make_space()))
    run(tmp_path, 2, sampler="random", plan=plan)
    assert begun == [0, shared]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second", "shared"), [(960, 240, 0), (240, 960, 160)])
def test_a_longer_trunk_is_not_shared_with_a_shorter_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, second: int, shared: int
) -> None:
    begun = list[int]()

    def asked(**given: object) -> Asked:
        begun.append(int(str(given.get("shared_updates", -1))))
        return Asked(**given)  # type: ignore[arg-type]

    monkeypatch.setattr("scalesearch.search.coordinator.Asked", asked)
    for budget, steps in ((1, first), (2, second)):
        widths = tuple(named for named in make_space().axes if named.name == "scaling.width")
        axes = (*widths, NamedAxis(name="training.steps", axis=Choice(values=(steps,))))
        run(tmp_path, budget, sampler="random", plan=_one_trunk, space=replace(make_space(), axes=axes))
    assert begun == [0, shared]
