"""The learning rate of a training: the share of the peak rate at each update.

`wsd` (warm-up, stable, decay; Hägele et al., arXiv 2405.18392) has two parts. The trunk warms up and then stays at the
peak rate. The branch falls along a line to zero. A trunk does not depend on how long the branch will be, so one trunk
serves many branches, and it can be continued to a longer one. `cosine` falls along a cosine from the end of the warm-up
on, so only the weights at its end are useful.
"""

import dataclasses
import math

from scalesearch.values.candidate import Recipe
from scalesearch.values.training_length import branch_steps, trunk_steps, warmup_steps


def rates(recipe: Recipe) -> tuple[float, ...]:
    """Return the share of the peak rate at each of the recipe's updates (steps,)."""
    return trunk_rates(recipe) + branch_rates(recipe)


def trunk_rates(recipe: Recipe) -> tuple[float, ...]:
    """Return the share of the peak rate at each update of the trunk: it rises along a line and then stays at 1."""
    rising = warmup_steps(recipe)
    return tuple(min(1.0, (step + 1) / rising) if rising else 1.0 for step in range(trunk_steps(recipe)))


def branch_rates(recipe: Recipe) -> tuple[float, ...]:
    """Return the share of the peak rate at each update of the branch.

    With `wsd` it falls along a line from just below 1 to just above 0. With `cosine` the branch is the whole training:
    a rise along a line that ends at 1, and then a fall along a cosine that ends near 0.
    """
    steps = branch_steps(recipe)
    if recipe.schedule == "wsd":
        return decay(steps)
    rising = warmup_steps(recipe)
    return tuple(
        (step + 1) / rising if step < rising else 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))
        for step in range(steps)
    )


def decay(steps: int) -> tuple[float, ...]:
    """Return `steps` rates that fall along a straight line from just below 1 to just above 0."""
    return tuple((steps - step) / (steps + 1) for step in range(steps))


def without_unread(recipe: Recipe) -> Recipe:
    """Return the recipe without what its own settings switch off, so that equal work has equal recipes.

    These are Muon's rate with another optimizer, and the temperature without distillation.
    """
    if recipe.optimizer != "muon":
        recipe = dataclasses.replace(recipe, muon_learning_rate=0.0)
    if not recipe.distill_weight:
        recipe = dataclasses.replace(recipe, distill_temperature=Recipe().distill_temperature)
    return recipe


def trunk_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe without everything that a trunk does not depend on, its length included.

    Recipes for which this returns equal recipes share one trunk, possibly at different lengths.
    """
    return dataclasses.replace(
        without_unread(recipe),
        steps=0,
        retrain_steps=0,
        branch_fraction=0.0,
        warmup_fraction=0.0,
        warmup_steps=warmup_steps(recipe),
        ema_decay=0.0,  # averages begin with the branch
    )
