from hypothesis import given
from hypothesis import strategies as st

from scalesearch.values.candidate import Recipe
from scalesearch.values.training_length import FULL_LENGTH, full_length, recipe_of


@given(brief=st.integers(1, 2000), retrain=st.integers(1, 500), steps=st.integers(1, 50_000), pruned=st.booleans())
def test_the_recipe_of_a_length_is_found_again(brief: int, retrain: int, steps: int, pruned: bool) -> None:
    recipe = Recipe(steps=brief, retrain_steps=retrain)
    asked = full_length(recipe, steps=steps)
    total = asked.steps + (asked.retrain_steps if pruned else 0)
    found = recipe_of(recipe, total_steps=total, pruned=pruned)
    assert found.steps + (found.retrain_steps if pruned else 0) == total


def test_the_default_length_is_found_exactly() -> None:
    recipe = Recipe(steps=240, retrain_steps=60)
    assert recipe_of(recipe, total_steps=FULL_LENGTH * 300, pruned=True) == full_length(recipe)
    assert recipe_of(recipe, total_steps=FULL_LENGTH * 240, pruned=False) == full_length(recipe)
    # 25 % of two channels is none: nothing was retrained, and no recipe makes 241 updates with a retraining in them.
    short = Recipe(steps=1, retrain_steps=10)
    assert recipe_of(short, total_steps=15, pruned=True).steps == 15
