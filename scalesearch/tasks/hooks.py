"""The parts of a task as plain callables, so that training, compression and measurement need not know about tasks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scalesearch.data.dataset import PerChannel
from scalesearch.data.mapped import ImageSource
from scalesearch.measurement.metric import Metric
from scalesearch.tasks.base import Task, named
from scalesearch.training.train import BatchSource
from scalesearch.values.candidate import Recipe

_PLAIN = Recipe(label_smoothing=0.0)
"""The recipe for judging channels, blocks and rounding: the task's usual loss without smoothing, whatever the trial's
recipe is.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The parts of a task that `training.train.train` needs."""

    task: Task

    def make_batches(
        self,
        images: Tensor | ImageSource,
        targets: Tensor,
        recipe: Recipe,
        *,
        mean: PerChannel,
        std: PerChannel,
        device: str,
        seed: int,
    ) -> BatchSource:
        """Return endless augmented batches of uint8 images (N, C, H, W) and their targets."""
        return self.task.make_batches(images, targets, recipe, mean=mean, std=std, device=device, seed=seed)

    def loss(self, answers: Any, targets: Any, recipe: Recipe) -> Tensor:
        """Return the sum of the task's weighted loss terms for what a module returned."""
        terms = iter(self.task.losses(named(self.task.output_names, answers), targets, recipe).values())
        total = next(terms)
        for term in terms:
            total = total + term
        return total


def plain_loss(task: Task) -> Callable[[Any, Any], Tensor]:
    """Return a function of what a module returned and the targets: the task's loss without a recipe's smoothing."""
    objective = Objective(task=task)
    return lambda answers, targets: objective.loss(answers, targets, _PLAIN)


def torch_divergence(task: Task) -> Callable[[Any, Any], Tensor]:
    """Return a function that tells how far what a module returned (first) is from what its teacher returned (second).

    The result has gradients.
    """
    return lambda answers, wanted: task.torch_divergence(
        named(task.output_names, wanted), named(task.output_names, answers)
    )


def score_torch(task: Task, metric: Metric, answers: Iterable[Any], targets: Any) -> float:
    """Return the score of what a module returned, against the targets of all images in order.

    Args:
        task: The task.
        metric: A metric of the task; it is reset first.
        answers: What the module returned, batch by batch.
        targets: Targets of all images, sliced along the images: `Targets`, an array or a tensor.
    """
    metric.reset()
    done = 0
    for returned in answers:
        outputs = {name: tensor.float().cpu().numpy() for name, tensor in named(task.output_names, returned).items()}
        count = len(next(iter(outputs.values())))
        wanted = targets[done : done + count]
        metric.update(outputs, wanted.numpy() if isinstance(wanted, torch.Tensor) else wanted)
        done += count
    return metric.score()
