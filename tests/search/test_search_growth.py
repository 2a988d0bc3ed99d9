"""The sampler `growth`: what it proposes, what that costs, and that a search with it is as sound as any other."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_evaluators import FakePlanner, MakeFake, macs_of, make_space
from study_runs import assert_sound, run

from scalesearch.analysis.belief import Observation
from scalesearch.records.store import RecordStore
from scalesearch.search import growth
from scalesearch.search.costs import FIXED_COST, in_seconds, in_trainings
from scalesearch.search.fates import repeat
from scalesearch.search.growth import POOL, pool_of, propose
from scalesearch.spaces.moves import drawn
from scalesearch.training.schedule import trunk_recipe
from scalesearch.values.candidate import Candidate, Precision, Pruning, Quantization, Recipe, Scaling
from scalesearch.values.record import MeasuredTrial, StageTime
from scalesearch.values.space import Choice, NamedAxis, SearchSpace
from scalesearch.values.training_length import trunk_steps

CUTS = NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.0, 0.25, 0.5)))
SPACE = replace(make_space(), axes=(CUTS, *make_space().axes))
FREE = in_trainings(SPACE, [])


def observed(space: SearchSpace, count: int) -> list[Observation]:
    random = np.random.default_rng(0)
    candidates = {drawn(space, random): None for _ in range(count)}
    return [
        Observation(candidate=each, score=0.5 + 0.2 * each.scaling.width, p50_ms=each.scaling.width**2)
        for each in candidates
    ]


def test_what_is_stored_makes_a_candidate_cheaper() -> None:
    whole = Candidate(scaling=Scaling(width=0.5), recipe=Recipe(branch_fraction=0.25))
    cut = replace(whole, pruning=Pruning(channel_fraction=0.25))
    int8 = Quantization(precision="int8")
    none, known = in_trainings(SPACE, []), in_trainings(SPACE, [whole])
    assert none(whole) == none(cut) == FIXED_COST + 1
    assert known(cut) == FIXED_COST + 0.25
    assert known(replace(whole, quantization=int8)) == FIXED_COST
    assert known(replace(whole, quantization=replace(int8, qat_steps=20))) > FIXED_COST
    assert known(replace(whole, recipe=replace(whole.recipe, schedule="cosine"))) == FIXED_COST + 1
    # Weights that were trained with their rounding are not those of the float network.
    aware = replace(whole, quantization=replace(int8, qat_steps=20))
    rounded = in_trainings(SPACE, [aware])
    assert rounded(whole) == FIXED_COST + 0.25
    # Of an equal candidate with another calibration, the updates with rounding alone are made again.
    again = replace(aware, quantization=replace(aware.quantization, calibration_images=8))
    assert rounded(again) == pytest.approx(FIXED_COST + 20 / whole.recipe.steps)


def test_updates_with_rounding_are_those_of_int8_alone(make_record: Callable[..., MeasuredTrial]) -> None:
    """A space may fix `qat_steps`, and every candidate then holds it."""
    fp32, fp16, int8 = (
        Candidate(scaling=Scaling(width=0.5), quantization=Quantization(precision=precision, qat_steps=60))
        for precision in ("fp32", "fp16", "int8")
    )
    known = in_trainings(SPACE, [fp32])
    assert known(fp16) == FIXED_COST
    assert known(int8) == pytest.approx(FIXED_COST + 1 / 3)  # its branch is another
    record = make_record(0)
    training = replace(record.training, train_s=1.0, retrain_s=0.0)
    records = [replace(record, candidate=fp32, training=training, same_as=None)]
    assert in_seconds(SPACE, records, {}) is not None
    assert in_seconds(SPACE, [replace(records[0], candidate=int8)], {}) is None


def test_with_cosine_a_cut_of_a_stored_network_costs_its_retraining() -> None:
    recipe = Recipe(schedule="cosine", steps=300, retrain_steps=60)
    whole = Candidate(scaling=Scaling(width=0.5), recipe=recipe)
    cut = replace(whole, pruning=Pruning(channel_fraction=0.25))
    none, known = in_trainings(SPACE, []), in_trainings(SPACE, [whole])
    assert none(cut) == FIXED_COST + 1
    assert known(cut) == pytest.approx(FIXED_COST + 60 / 360)
    assert known(replace(cut, scaling=Scaling(width=0.75))) == FIXED_COST + 1


@pytest.mark.parametrize(
    "other",
    [
        {"branch_fraction": 0.2},
        {"branch_fraction": 0.5},
        {"branch_fraction": 0.2, "steps": 600},
        {"ema_decay": 0.99},
        {"warmup_steps": 1000, "branch_fraction": 0.5},  # at most half of a trunk: 100 as before, now 75
        {"learning_rate": 0.02},
        {"dropout": 0.0},
    ],
    ids=lambda other: " ".join(other),
)
def test_a_trunk_is_there_if_its_recipe_is_and_it_is_not_longer_than_asked(other: dict[str, Any]) -> None:
    stored = Candidate(recipe=Recipe(warmup_steps=other.get("warmup_steps", 60)))
    asked = replace(stored, recipe=replace(stored.recipe, **other))
    there = trunk_recipe(stored.recipe) == trunk_recipe(asked.recipe)
    length, known = trunk_steps(asked.recipe), in_trainings(SPACE, [stored])
    # A trunk of 200 updates is stored; weights are decayed from its end only.
    new = asked.recipe.steps - (200 if there and length >= 200 else 0)
    assert known(asked) == pytest.approx(FIXED_COST + new / asked.recipe.steps)
    assert known(stored) == FIXED_COST


def test_networks_that_are_cut_from_one_trunk_share_it() -> None:
    widths = NamedAxis(name="scaling.width", axis=Choice(values=(0.5, 0.75, 1.0)))
    space = SearchSpace(name="own", network="resnet_small", resolution_px=64, axes=(widths,))
    half, more = (Candidate(scaling=Scaling(width=width, width_by="cut")) for width in (0.5, 0.75))
    largest, scratch = Candidate(scaling=Scaling(width=1.0)), Candidate(scaling=Scaling(width=0.75))
    known = in_trainings(space, [half])
    assert known(half) == FIXED_COST
    assert known(more) == known(largest) == pytest.approx(FIXED_COST + 1 / 3)  # the branch is its own
    cut = replace(more, pruning=Pruning(channel_fraction=0.25))
    assert known(cut) == pytest.approx(FIXED_COST + 1 / 3)
    assert known(scratch) == FIXED_COST + 1


def test_seconds_are_expected_from_what_trainings_took(make_record: Callable[..., MeasuredTrial]) -> None:
    random, records = np.random.default_rng(0), list[MeasuredTrial]()
    for trial in range(12):
        candidate = drawn(SPACE, random)
        record, free = make_record(trial), trial >= 10
        # Both parts of a training are told, the stored one, too: a branch of a stored trunk made 10 of 30 updates.
        whole_s, new = 60 * candidate.scaling.width**2, 10 if candidate.pruning.channel_fraction else 30
        took = replace(record.training, train_s=2 / 3 * whole_s, retrain_s=whole_s / 3, steps=30, new_steps=new)
        stages = (StageTime(stage="latency", seconds=3.0),)
        records.append(replace(record, candidate=candidate, training=took, charged=not free, stages=stages))
    assert {record.charge for record in records} == {0, 1 / 3, 1}
    assert in_seconds(SPACE, [replace(each, charged=False) for each in records], {}) is None
    repeats = [repeat(records[11], 20 + number, records[11].candidate) for number in range(5)]
    costs = in_seconds(SPACE, [*records, *repeats], {})
    assert costs
    assert costs.fixed == 3.0
    new_width = replace(records[0].candidate, scaling=replace(records[0].candidate.scaling, width=0.111))
    assert costs(new_width) == pytest.approx(3 + 60 * 0.111**2, rel=0.05)
    first = records[0].candidate
    tried = {each.candidate.pruning for each in records if each.candidate.scaling == first.scaling}
    (other, *_) = [Pruning(channel_fraction=cut) for cut in (0.25, 0.5) if Pruning(channel_fraction=cut) not in tried]
    branch_s = 60 * first.scaling.width**2 * first.recipe.branch_fraction
    assert costs(replace(first, pruning=other)) == pytest.approx(3 + branch_s, rel=0.05)


def test_who_needs_a_trunk_in_training_waits_for_it(
    make_record: Callable[..., MeasuredTrial],
) -> None:
    random, records = np.random.default_rng(0), list[MeasuredTrial]()
    for trial in range(12):
        record = make_record(trial)
        took = replace(record.training, train_s=30.0, retrain_s=0.0, steps=30, new_steps=30)
        stages = (StageTime(stage="latency", seconds=3.0),)
        records.append(replace(record, candidate=drawn(SPACE, random), training=took, stages=stages))
    known = records[0].candidate
    new = replace(known, scaling=replace(known.scaling, width=0.111))
    cut = replace(new, pruning=Pruning(channel_fraction=0.25 if new.pruning.channel_fraction != 0.25 else 0.5))
    trunk_s, branch_s = 30 * (1 - new.recipe.branch_fraction), 30 * new.recipe.branch_fraction
    fixed_s = FIXED_COST * 30

    def cost(candidate: Candidate, ran_s: float) -> float:
        costs = in_seconds(SPACE, records, {new: ran_s})
        assert costs
        return costs(candidate)

    int8 = replace(new, quantization=Quantization(precision="int8"))
    assert cost(int8, 0) == pytest.approx(fixed_s + 30, rel=0.01), "the same network is waited for to its end"
    assert cost(int8, 5) == pytest.approx(fixed_s + 30 - 5, rel=0.01)
    assert cost(int8, 31) == pytest.approx(fixed_s)
    assert cost(cut, trunk_s + 1) == pytest.approx(fixed_s + branch_s, rel=0.01)
    assert cost(cut, 5) == pytest.approx(fixed_s + trunk_s - 5 + branch_s, rel=0.01)
    other = replace(new, scaling=replace(new.scaling, width=0.222))
    assert cost(other, 5) == pytest.approx(fixed_s + 30, rel=0.01)
    costs = in_seconds(SPACE, records, {new: 5.0})
    assert costs
    assert costs.of_all([other]) == pytest.approx(fixed_s + 30, rel=0.01), "the run's room counts no waiting"
    longer = replace(known, recipe=replace(known.recipe, steps=4 * known.recipe.steps))
    lengthened = in_seconds(SPACE, records, {longer: 5.0})
    assert lengthened
    other_cut = replace(known, pruning=Pruning(channel_fraction=0.25 if known.pruning.channel_fraction == 0.5 else 0.5))
    assert lengthened.wait(other_cut) == 0, "its trunk is stored"
    assert lengthened.wait(replace(other_cut, recipe=longer.recipe)) > 5
    stored = [*(each.candidate for each in records), new]
    trainings = replace(in_trainings(SPACE, stored), in_seconds=costs)
    assert trainings(cut) == pytest.approx(FIXED_COST + (trunk_s - 5) / 30 + new.recipe.branch_fraction, rel=0.01)
    assert trainings(other) == pytest.approx(FIXED_COST + 1)


def test_no_network_is_asked_for_in_another_precision_while_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, opened = list[Candidate](), list[Candidate]()

    def twin_if_open(*given: Any, running: list[Candidate], is_open: Callable[[Candidate], bool], **named: Any) -> Any:
        """Propose a running network in its other precision if that is open."""
        for each in running:
            other: Precision = "fp32" if each.quantization.precision == "int8" else "int8"
            twin = replace(each, quantization=Quantization(precision=other))
            asked.append(twin)
            if is_open(twin):
                opened.append(twin)
        return propose(*given, running=running, is_open=is_open, **named)

    monkeypatch.setattr(growth, "propose", twin_if_open)
    make = MakeFake(seconds=0.03)
    run(tmp_path, 14, space=SPACE, plan=FakePlanner(), make=make, sampler="growth", workers=2)
    assert len(asked) > 3
    assert not opened


def test_with_nothing_else_open_a_worker_waits_for_a_network_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six networks in two precisions: with two workers, the last candidates are twins of running ones."""
    twins = list[Candidate]()

    def watched(*given: Any, running: list[Candidate], **named: Any) -> Any:
        found = propose(*given, running=running, **named)
        if found and any(replace(each, quantization=found.quantization) == found for each in running):
            twins.append(found)
        return found

    monkeypatch.setattr(growth, "propose", watched)
    axes = (
        NamedAxis(name="scaling.width", axis=Choice(values=(0.5, 0.6, 0.7, 0.8, 0.9, 1.0))),
        NamedAxis(name="quantization.precision", axis=Choice(values=("fp32", "int8"))),
    )
    space = replace(SPACE, axes=axes)
    make = MakeFake(seconds=0.03)
    run(tmp_path, 12, space=space, plan=FakePlanner(), make=make, sampler="growth", workers=2)
    found = {record.candidate for record in RecordStore(tmp_path).all() if record.state == "complete"}
    assert len(found) == 12
    assert twins


def test_a_pool_holds_nothing_known() -> None:
    known = observed(SPACE, 20)
    pool = pool_of(SPACE, known, np.random.default_rng(1), known={each.candidate for each in known})
    assert 0 < len(pool) <= POOL
    assert len(set(pool)) == len(pool)
    assert not set(pool) & {each.candidate for each in known}


def test_only_open_candidates_are_proposed_and_equal_seeds_propose_the_same() -> None:
    known = observed(SPACE, 20)
    asked = list[Candidate]()

    def is_open(candidate: Candidate) -> bool:
        asked.append(candidate)
        return len(asked) > 3

    first = propose(SPACE, known, running=(), cost=FREE, is_open=is_open, seed=5)
    assert first == asked[3]
    assert propose(SPACE, known, running=(), cost=FREE, is_open=lambda _: False, seed=5) is None
    assert propose(SPACE, known, running=(), cost=FREE, is_open=lambda _: True, seed=5) == asked[0]
    assert propose(SPACE, known[:2], running=(), cost=FREE, is_open=lambda _: True, seed=5) is None


def test_a_running_candidate_is_not_proposed_again() -> None:
    known = observed(SPACE, 20)
    first = propose(SPACE, known, running=(), cost=FREE, is_open=lambda _: True, seed=5)
    assert first
    assert propose(SPACE, known, running=(first,), cost=FREE, is_open=lambda _: True, seed=5) not in (first, None)


def test_the_limit_of_macs_does_not_leave_it_without_a_proposal() -> None:
    space = make_space(max_macs=1000)
    known = [each for each in observed(space, 40) if macs_of(each.candidate) <= 1000]
    known = [replace(each, macs=macs_of(each.candidate)) for each in known][:8]
    tried = {each.candidate for each in known}

    def is_open(candidate: Candidate) -> bool:
        return macs_of(candidate) <= 1000 and candidate not in tried

    for seed in range(4):
        assert propose(space, known, running=(), cost=FREE, is_open=is_open, seed=seed)


def test_infeasible_trials_teach_but_are_no_parents() -> None:
    known = observed(SPACE, 30)
    (smallest, *_) = sorted(known, key=lambda each: each.candidate.scaling.width)
    only = [replace(each, feasible=each is smallest) for each in known]
    random = np.random.default_rng(0)
    near = list(pool_of(SPACE, only, random, known=set()))[:5]
    assert all(each.scaling.width <= smallest.candidate.scaling.width + 0.3 for each in near)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_with_it_is_sound_and_goes_on_where_it_was(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposals = list[Candidate]()

    def noted(*given: Any, **named: Any) -> Candidate | None:
        found = propose(*given, **named)
        proposals.extend([found] if found else [])
        return found

    monkeypatch.setattr(growth, "propose", noted)
    run(tmp_path, 8, space=SPACE, plan=FakePlanner(), sampler="growth", siblings=True, workers=workers)
    assert_sound(tmp_path, 8)
    begun = len(proposals)
    assert begun
    run(tmp_path, 14, space=SPACE, plan=FakePlanner(), sampler="growth", siblings=True, workers=workers)
    records = assert_sound(tmp_path, 14)
    assert len(proposals) > begun
    assert {*proposals} <= {record.candidate for record in records}
    own = [record for record in records if record.sibling_of is None]
    assert {record.candidate.pruning.channel_fraction for record in own[:4]} == {0.0}, "the start is drawn uncut"


def test_a_space_without_the_default_of_a_conditional_axis_is_searched(tmp_path: Path) -> None:
    calibration = NamedAxis(name="quantization.calibration", axis=Choice(values=("percentile", "mse")))
    others = tuple(named for named in SPACE.axes if named.name != calibration.name)
    space = replace(SPACE, axes=(*others, calibration))
    run(tmp_path, 16, space=space, plan=FakePlanner(), sampler="growth")
    records = assert_sound(tmp_path, 16)
    int8 = [each.candidate.quantization for each in records if each.candidate.quantization.precision == "int8"]
    assert int8
    assert {each.calibration for each in int8} <= {"percentile", "mse"}
