"""The one rule of how long a network is trained for once the search is over."""

import dataclasses
import math

from scalesearch.values.candidate import Recipe

FULL_LENGTH = 8
"""Full training is this many times the search's brief one, unless something else is asked."""


def recipe_of(recipe: Recipe, *, total_steps: int, pruned: bool) -> Recipe:
    """The full-length recipe that makes so many updates in all, the retraining after pruning (if any) included."""
    if pruned:
        near = round(total_steps * recipe.steps / (recipe.steps + recipe.retrain_steps))
        for steps in (near, near - 1, near + 1):
            found = full_length(recipe, steps=max(1, steps))
            if found.steps + found.retrain_steps == total_steps:
                return found
    return full_length(recipe, steps=total_steps)  # a fraction that rounds to nothing is not retrained


def full_length(
    recipe: Recipe, *, steps: int | None = None, epochs: int | None = None, train_images: int = 0
) -> Recipe:
    """The recipe at full length: `steps` updates, or so many passes over the training images, or 8 times the brief one.

    The retraining after pruning grows by the same factor.
    """
    if epochs is not None:
        steps = max(1, math.ceil(epochs * train_images / recipe.batch_size))
    total = steps or FULL_LENGTH * recipe.steps
    return dataclasses.replace(
        recipe, steps=total, retrain_steps=max(1, round(recipe.retrain_steps * total / recipe.steps))
    )
