"""The sampler `growth`: what it proposes, what that costs, and that a search with it is as sound as any other."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_evaluators import FakePlanner, make_space
from study_runs import assert_sound, run

from scalesearch.analysis.belief import Observation
from scalesearch.search.growth import FIXED_COST, POOL, in_seconds, in_trainings, pool_of, propose
from scalesearch.spaces.moves import drawn
from scalesearch.values.candidate import Candidate, Pruning, Quantization, Recipe, Scaling
from scalesearch.values.record import MeasuredTrial, StageTime, TrialRecord
from scalesearch.values.space import Choice, NamedAxis, SearchSpace

CUTS = NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.0, 0.25, 0.5)))
FREE = in_trainings([])
SPACE = replace(make_space(), axes=(CUTS, *make_space().axes))


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
    none, known = in_trainings([]), in_trainings([whole])
    assert none(whole) == none(cut) == FIXED_COST + 1
    assert known(cut) == FIXED_COST + 0.25
    assert known(replace(whole, quantization=int8)) == FIXED_COST
    assert known(replace(whole, quantization=replace(int8, qat_steps=20))) > FIXED_COST
    assert known(replace(whole, recipe=replace(whole.recipe, schedule="cosine"))) == FIXED_COST + 1


def test_seconds_are_expected_from_what_trainings_took(make_record: Callable[..., MeasuredTrial]) -> None:
    random, records = np.random.default_rng(0), list[TrialRecord]()
    for trial in range(12):
        candidate = drawn(SPACE, random, {CUTS.name: 0.0})
        record = make_record(trial)
        took = replace(record.training, train_s=40 * candidate.scaling.width**2, retrain_s=0.0, steps=10, new_steps=10)
        stages = (StageTime(stage="latency", seconds=3.0),)
        records.append(replace(record, candidate=candidate, training=took, charged=trial < 10, stages=stages))
    assert in_seconds(SPACE, [replace(each, charged=False) for each in records], ()) is None
    costs = in_seconds(SPACE, records, ())
    assert costs
    assert costs.fixed == 3.0
    new = replace(records[0].candidate, scaling=replace(records[0].candidate.scaling, width=0.111))
    assert costs(new) == pytest.approx(3 + 40 * 0.111**2, rel=0.05)
    cut = replace(records[0].candidate, pruning=Pruning(channel_fraction=0.25))
    whole_s = 40 * records[0].candidate.scaling.width ** 2
    assert costs(cut) == pytest.approx(3 + whole_s * cut.recipe.branch_fraction, rel=0.05)
    running = in_seconds(SPACE, records, (new,))
    assert running
    assert running(replace(new, quantization=Quantization(precision="int8"))) == 3.0


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


@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_with_it_is_sound_and_goes_on_where_it_was(tmp_path: Path, workers: int) -> None:
    run(tmp_path, 8, space=SPACE, plan=FakePlanner(), sampler="growth", siblings=True, workers=workers)
    assert_sound(tmp_path, 8)
    run(tmp_path, 14, space=SPACE, plan=FakePlanner(), sampler="growth", siblings=True, workers=workers)
    records = assert_sound(tmp_path, 14)
    own = [record for record in records if record.sibling_of is None]
    assert {record.candidate.pruning.channel_fraction for record in own[:4]} == {0.0}, "the start is drawn uncut"
    assert sum(record.same_as is not None for record in own) <= 2
