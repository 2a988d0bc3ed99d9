"""How many updates the parts of a training have, and the one rule for its length once the search is over."""

import dataclasses
import math

from scalesearch.values.candidate import Quantization, Recipe
from scalesearch.values.record import MeasuredTrial

FULL_LENGTH = 8
"""Full training has this many times the steps of the search's brief training, unless something else is asked for."""

FULL_LENGTH_OF_LENGTHS = 4
"""The same in a study that trains candidates by unlike lengths: times the greatest of them, that of its front."""


def branch_steps(recipe: Recipe) -> int:
    """Return how many of the recipe's updates belong to the branch: at least 1; all of them with `cosine`."""
    if recipe.schedule == "cosine":
        return recipe.steps
    return min(recipe.steps, max(1, round(recipe.branch_fraction * recipe.steps)))


def aware_updates(recipe: Recipe, quantization: Quantization) -> int:
    """Return how many of the branch's updates simulate rounding: 0 with `cosine`, where these come after all others."""
    return quantization.aware_steps if recipe.schedule != "cosine" else 0


def least_steps(recipe: Recipe, *, branch: int) -> int:
    """Return the least number of updates with which the recipe's branch has at least `branch` of them."""
    if branch <= 1:
        return 1
    steps = max(branch, math.floor((branch - 0.5) / recipe.branch_fraction))  # with fewer it rounds to a smaller one
    while branch_steps(dataclasses.replace(recipe, steps=steps)) < branch:
        steps += 1
    return steps


def trunk_steps(recipe: Recipe) -> int:
    """Return how many updates come before the branch; 0 with `cosine`, which has no trunk."""
    return recipe.steps - branch_steps(recipe)


def warmup_steps(recipe: Recipe) -> int:
    """Return the number of updates over which the rate rises: at most half of a trunk."""
    if recipe.schedule == "cosine":
        return min(recipe.steps - 1, round(recipe.warmup_fraction * recipe.steps))
    return min(recipe.warmup_steps, trunk_steps(recipe) // 2)


def recipe_of(recipe: Recipe, *, total_steps: int, pruned: bool) -> Recipe:
    """Return the full-length recipe with `total_steps` updates, including the retraining after pruning (if any)."""
    if pruned and recipe.schedule == "cosine":
        near = round(total_steps * recipe.steps / (recipe.steps + recipe.retrain_steps))
        for steps in (near, near - 1, near + 1):
            found = with_updates(recipe, max(1, steps))
            if found.steps + found.retrain_steps == total_steps:
                return found
    return with_updates(recipe, total_steps)  # pruning that rounds to no channel at all has no retraining


def updates(recipe: Recipe, *, pruned: bool) -> int:
    """Return how many updates a candidate makes; with the schedule `wsd` pruning changes nothing about that."""
    return recipe.steps + (recipe.retrain_steps if pruned and recipe.schedule == "cosine" else 0)


def was_retrained(record: MeasuredTrial) -> bool:
    """Tell whether the trial was trained again after pruning: with the schedule `cosine`, if pruning removed anything.

    A requested fraction may round to no channel at all; such a trial makes the updates of a dense one. Updates with
    simulated rounding do not matter: `training.steps` counts them only with `wsd`, where they are among the recipe's.
    """
    return record.training.steps > record.candidate.recipe.steps


def usual_full_length(recipe: Recipe, *, full_updates: int) -> int:
    """Return how many updates full training has if nothing is asked for.

    Args:
        recipe: The recipe of the search's training.
        full_updates: Updates of a front member, where candidates are trained by unlike lengths; else 0.
    """
    return FULL_LENGTH_OF_LENGTHS * full_updates if full_updates else FULL_LENGTH * recipe.steps


def full_length(
    recipe: Recipe,
    *,
    full_updates: int,
    steps: int | None = None,
    epochs: int | None = None,
    train_images: int = 0,
) -> Recipe:
    """Return the recipe at full length.

    Args:
        recipe: The recipe of the search's training.
        full_updates: Updates of a front member, where candidates are trained by unlike lengths; else 0.
        steps: Number of updates; None takes 8 times those of the recipe, or 4 times `full_updates`.
        epochs: Number of passes over the training images; if given, it decides instead of `steps`.
        train_images: Number of training images, for `epochs`.
    """
    if epochs is not None:
        steps = max(1, math.ceil(epochs * train_images / recipe.batch_size))
    return with_updates(recipe, steps or usual_full_length(recipe, full_updates=full_updates))


def with_updates(recipe: Recipe, steps: int) -> Recipe:
    """Return the recipe with another number of updates.

    The retraining after pruning, if there is any, grows by the same factor. The warm-up of the schedule `wsd` does not
    grow, so that the longer training continues the brief one's trunk.
    """
    retrain_steps = max(1, round(recipe.retrain_steps * steps / recipe.steps)) if recipe.retrain_steps else 0
    return dataclasses.replace(recipe, steps=steps, retrain_steps=retrain_steps)
