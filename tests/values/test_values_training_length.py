from hypothesis import given
from hypothesis import strategies as st

from scalesearch.values.candidate import Recipe, ScheduleName
from scalesearch.values.training_length import FULL_LENGTH, full_length, recipe_of, updates


@given(
    brief=st.integers(1, 2000),
    retrain=st.integers(1, 500),
    steps=st.integers(1, 50_000),
    pruned=st.booleans(),
    schedule=st.sampled_from(["wsd", "cosine"]),
)
def test_the_recipe_of_a_length_is_found_again(
    brief: int, retrain: int, steps: int, pruned: bool, schedule: ScheduleName
) -> None:
    recipe = Recipe(steps=brief, retrain_steps=retrain, schedule=schedule)
    total = updates(full_length(recipe, steps=steps), pruned=pruned)
    assert updates(recipe_of(recipe, total_steps=total, pruned=pruned), pruned=pruned) == total


def test_a_cut_network_makes_as_many_updates_as_a_dense_one_unless_it_is_trained_once_more() -> None:
    assert [updates(Recipe(steps=240, retrain_steps=60), pruned=pruned) for pruned in (False, True)] == [240, 240]
    cosine = Recipe(steps=240, retrain_steps=60, schedule="cosine")
    assert [updates(cosine, pruned=pruned) for pruned in (False, True)] == [240, 300]


def test_the_default_length_is_found_exactly() -> None:
    recipe = Recipe(steps=240, retrain_steps=60, schedule="cosine")
    assert recipe_of(recipe, total_steps=FULL_LENGTH * 300, pruned=True) == full_length(recipe)
    assert recipe_of(recipe, total_steps=FULL_LENGTH * 240, pruned=False) == full_length(recipe)
    # 25 % of two channels is none: nothing was retrained, and no recipe makes 241 updates with a retraining in them.
    short = Recipe(steps=1, retrain_steps=10, schedule="cosine")
    assert recipe_of(short, total_steps=15, pruned=True).steps == 15
