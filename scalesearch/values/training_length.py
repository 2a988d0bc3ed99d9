"""The one rule of how long a network is trained for once the search is over."""

import dataclasses
import math

from scalesearch.values.candidate import Recipe

FULL_LENGTH = 8
"""Full training is this many times the search's brief one, unless something else is asked."""


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
