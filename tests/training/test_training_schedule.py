"""The learning rate's course: its length, its shape, and what a trunk does not depend on."""

import math
from dataclasses import replace

import pytest

from scalesearch.training.schedule import branch_rates, rates, trunk_rates, trunk_recipe
from scalesearch.values.candidate import Recipe
from scalesearch.values.training_length import branch_steps, trunk_steps, warmup_steps

COSINE = Recipe(schedule="cosine", steps=100, warmup_fraction=0.25)
WSD = Recipe(steps=240, branch_fraction=1 / 3, warmup_steps=60)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
@pytest.mark.parametrize("fraction", [0.0, 0.33, 1.0])
def test_there_is_one_rate_for_each_update_and_all_are_above_zero_and_at_most_one(
    steps: int, schedule: str, fraction: float
) -> None:
    recipe = Recipe(steps=steps, branch_fraction=fraction, warmup_fraction=fraction)
    recipe = replace(recipe, schedule="wsd" if schedule == "wsd" else "cosine")

    found = rates(recipe)

    assert len(found) == steps
    assert all(0 < rate <= 1 for rate in found)
    assert trunk_steps(recipe) + branch_steps(recipe) == steps


def test_a_trunk_rises_and_stays_and_its_branch_falls_along_a_line() -> None:
    trunk, branch = trunk_rates(WSD), branch_rates(WSD)

    assert trunk[:60] == tuple((step + 1) / 60 for step in range(60))
    assert set(trunk[60:]) == {1.0}
    assert len(branch) == 80
    assert branch == tuple((80 - step) / 81 for step in range(80))


def test_a_longer_trunk_begins_like_a_shorter_one() -> None:
    longer = replace(WSD, steps=1920)

    assert trunk_rates(longer)[: trunk_steps(WSD)] == trunk_rates(WSD)
    assert trunk_recipe(longer) == trunk_recipe(WSD)


def test_a_trunk_does_not_depend_on_its_branch() -> None:
    others = (
        replace(WSD, retrain_steps=7),
        replace(WSD, ema_decay=0.9),
        replace(WSD, steps=200, branch_fraction=0.2),
    )

    assert {trunk_recipe(other) for other in others} == {trunk_recipe(WSD)}


def test_a_trunk_depends_on_how_it_is_trained() -> None:
    others = (replace(WSD, learning_rate=0.1), replace(WSD, flip=True), replace(WSD, warmup_steps=30))

    assert trunk_recipe(WSD) not in {trunk_recipe(other) for other in others}


def test_the_warm_up_takes_at_most_half_of_the_trunk() -> None:
    assert warmup_steps(replace(WSD, steps=30)) == 10


def test_cosine_rises_linearly_to_its_peak_and_falls_to_near_zero() -> None:
    factors = rates(COSINE)

    assert factors[:25] == tuple((step + 1) / 25 for step in range(25))
    assert factors[25] == 1
    assert factors[25:] == tuple(sorted(factors[25:], reverse=True))
    assert math.isclose(factors[62] + factors[63], 2 * 0.5 * (1 + math.cos(math.pi * 37.5 / 75)), abs_tol=1e-9)
    assert factors[-1] < 0.01
    assert trunk_steps(COSINE) == 0
