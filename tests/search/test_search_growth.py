"""The sampler `growth`: what it proposes, what that costs, and that a search with it is as sound as any other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_evaluators import FakePlanner, make_space
from study_runs import assert_sound, run

from scalesearch.analysis.belief import Observation
from scalesearch.search.growth import FIXED_COST, POOL, cost, pool_of, propose
from scalesearch.spaces.moves import drawn
from scalesearch.values.candidate import Candidate, Pruning, Quantization, Recipe, Scaling
from scalesearch.values.space import Choice, NamedAxis, SearchSpace

CUTS = NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.0, 0.25, 0.5)))
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
    none: dict[Candidate, set[Pruning]] = {}
    known = {whole: {whole.pruning}}
    assert cost(whole, none) == cost(cut, none) == FIXED_COST + 1
    assert cost(cut, known) == FIXED_COST + 0.25
    assert cost(replace(whole, quantization=int8), known) == FIXED_COST
    assert cost(replace(whole, quantization=replace(int8, qat_steps=20)), known) > FIXED_COST
    assert cost(replace(whole, recipe=replace(whole.recipe, schedule="cosine")), known) == FIXED_COST + 1


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

    first = propose(SPACE, known, running=(), is_open=is_open, seed=5)
    assert first == asked[3]
    assert propose(SPACE, known, running=(), is_open=lambda _: False, seed=5) is None
    assert propose(SPACE, known, running=(), is_open=lambda _: True, seed=5) == asked[0]
    assert propose(SPACE, known[:2], running=(), is_open=lambda _: True, seed=5) is None


def test_a_running_candidate_is_not_proposed_again() -> None:
    known = observed(SPACE, 20)
    first = propose(SPACE, known, running=(), is_open=lambda _: True, seed=5)
    assert first
    assert propose(SPACE, known, running=(first,), is_open=lambda _: True, seed=5) not in (first, None)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_with_it_is_sound_and_goes_on_where_it_was(tmp_path: Path, workers: int) -> None:
    run(tmp_path, 8, space=SPACE, plan=FakePlanner(), sampler="growth", siblings=True, workers=workers)
    assert_sound(tmp_path, 8)
    run(tmp_path, 14, space=SPACE, plan=FakePlanner(), sampler="growth", siblings=True, workers=workers)
    records = assert_sound(tmp_path, 14)
    own = [record for record in records if record.sibling_of is None]
    assert {record.candidate.pruning.channel_fraction for record in own[:4]} == {0.0}, "the start is drawn uncut"
    assert sum(record.same_as is not None for record in own) <= 2
