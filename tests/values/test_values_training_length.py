from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scalesearch.values.candidate import Quantization, Recipe, ScheduleName
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.training_length import (
    FULL_LENGTH,
    FULL_LENGTH_OF_LENGTHS,
    branch_steps,
    full_length,
    least_steps,
    recipe_of,
    updates,
    was_retrained,
    with_updates,
)


@given(
    brief=st.integers(1, 2000),
    retrain=st.integers(0, 500),
    steps=st.integers(1, 50_000),
    pruned=st.booleans(),
    schedule=st.sampled_from(["wsd", "cosine"]),
)
def test_the_recipe_of_a_length_is_found_again(
    brief: int, retrain: int, steps: int, pruned: bool, schedule: ScheduleName
) -> None:
    recipe = Recipe(steps=brief, retrain_steps=retrain, schedule=schedule)
    total = updates(with_updates(recipe, steps), pruned=pruned)
    assert updates(recipe_of(recipe, total_steps=total, pruned=pruned), pruned=pruned) == total


def test_a_cut_network_makes_as_many_updates_as_a_dense_one_unless_it_is_trained_once_more() -> None:
    assert [updates(Recipe(steps=240, retrain_steps=60), pruned=pruned) for pruned in (False, True)] == [240, 240]
    cosine = Recipe(steps=240, retrain_steps=60, schedule="cosine")
    assert [updates(cosine, pruned=pruned) for pruned in (False, True)] == [240, 300]


def test_a_trial_whose_pruning_rounded_to_nothing_was_not_retrained(make_record: Callable[..., MeasuredTrial]) -> None:
    asked = make_record(0)
    recipe = Recipe(steps=240, retrain_steps=60, schedule="cosine")
    for steps, retrained in ((300, True), (240, False)):
        candidate = replace(asked.candidate, recipe=recipe)
        record = replace(asked, candidate=candidate, training=replace(asked.training, steps=steps))
        assert record.candidate.pruning.any
        assert was_retrained(record) is retrained
    # 1,920 updates of a dense network, not 1,536 and a retraining of 384
    assert recipe_of(recipe, total_steps=1920, pruned=was_retrained(record)).steps == 1920


@given(fraction=st.floats(1e-4, 1), branch=st.integers(1, 400))
@example(fraction=1 / 3, branch=61)
@example(fraction=0.5, branch=4)  # 7 updates: 3.5 is rounded to the even number
def test_the_least_length_of_a_branch_is_the_first_that_has_so_many(fraction: float, branch: int) -> None:
    steps = least_steps(Recipe(branch_fraction=fraction), branch=branch)
    assert branch_steps(Recipe(branch_fraction=fraction, steps=steps)) >= branch
    if steps > 1:
        assert branch_steps(Recipe(branch_fraction=fraction, steps=steps - 1)) < branch


def test_without_a_retraining_there_is_none_at_full_length_and_its_recipe_is_found_again(
    make_record: Callable[..., MeasuredTrial],
) -> None:
    asked, recipe = make_record(0), Recipe(steps=240, retrain_steps=0, schedule="cosine")
    record = replace(asked, candidate=replace(asked.candidate, recipe=recipe))
    record = replace(record, training=replace(record.training, steps=240))
    full = full_length(recipe, full_updates=0)
    assert record.candidate.pruning.any and not was_retrained(record)
    assert (full.steps, full.retrain_steps) == (FULL_LENGTH * 240, 0)
    total = updates(full, pruned=True)  # as `confirm` makes them
    assert recipe_of(recipe, total_steps=total, pruned=was_retrained(record)) == full  # as `export --confirmed` asks
    short = with_updates(replace(recipe, retrain_steps=60), 2)
    assert short.retrain_steps == 1


@pytest.mark.parametrize(
    ("schedule", "steps", "retrained"), [("cosine", 300, True), ("cosine", 240, False), ("wsd", 240, False)]
)
def test_updates_with_simulated_rounding_are_no_retraining(
    make_record: Callable[..., MeasuredTrial], schedule: ScheduleName, steps: int, retrained: bool
) -> None:
    """They are among the 240 of `wsd`, and not counted with `cosine` (see `test_chain_deploy`)."""
    asked, recipe = make_record(0), Recipe(steps=240, retrain_steps=60, schedule=schedule)
    candidate = replace(asked.candidate, recipe=recipe, quantization=Quantization(precision="int8", qat_steps=80))
    record = replace(asked, candidate=candidate, training=replace(asked.training, steps=steps))
    assert was_retrained(record) is retrained


def test_the_default_length_is_found_exactly() -> None:
    recipe = Recipe(steps=240, retrain_steps=60, schedule="cosine")
    assert recipe_of(recipe, total_steps=FULL_LENGTH * 300, pruned=True) == full_length(recipe, full_updates=0)
    assert recipe_of(recipe, total_steps=FULL_LENGTH * 240, pruned=False) == full_length(recipe, full_updates=0)
    # 25 % of two channels is none: nothing was retrained, and no recipe makes 241 updates with a retraining in them.
    short = Recipe(steps=1, retrain_steps=10, schedule="cosine")
    assert recipe_of(short, total_steps=15, pruned=True).steps == 15


def test_where_lengths_are_unlike_the_front_was_trained_longer_already_so_that_full_length_is_fewer_times_that() -> (
    None
):
    recipe = Recipe(steps=960, retrain_steps=60)
    full = full_length(recipe, full_updates=960)
    assert (full.steps, full.retrain_steps) == (960 * FULL_LENGTH_OF_LENGTHS, 60 * FULL_LENGTH_OF_LENGTHS)
    assert FULL_LENGTH_OF_LENGTHS < FULL_LENGTH
    assert full_length(recipe, full_updates=960, steps=7).steps == 7
