"""The parts of a task as plain callables, for training, compression and measurement, which know nothing of tasks."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from scalesearch.data.mapped import ImageSource
from scalesearch.data.normalisation import PerChannel
from scalesearch.measurement.metric import Metric
from scalesearch.tasks.base import ResizedOutputs, Task, TorchOutputs, named
from scalesearch.training.batches import BatchSource, Drawn
from scalesearch.values.candidate import Recipe


class Teacher(Protocol):
    """A trained network that gives its outputs for training images."""

    @property
    def sides_px(self) -> tuple[int, int]:
        """Height and width of the images that it sees."""
        ...

    def answers(self, drawn: Drawn) -> TorchOutputs:
        """Return its outputs for the images of a batch, by the names of the task's outputs, without gradients."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Taught:
    """The targets of a batch, together with a teacher's outputs for its images."""

    targets: Any
    answers: TorchOutputs


class _TaughtBatches:
    """The batches of another source, with a teacher's outputs added to the targets, made to fit the images' size."""

    def __init__(self, source: BatchSource, teacher: Teacher, task: Task, device: str) -> None:
        self._source, self._teacher, self._device = source, teacher, device
        self._resized = task.resized if isinstance(task, ResizedOutputs) else None

    def state(self) -> dict[str, Tensor]:
        return self._source.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._source.restore(state)

    def next(self) -> tuple[Tensor, _Taught]:
        images, targets = self._source.next()
        answers = self._teacher.answers(self._source.drawn())
        seen_px, sides_px = self._teacher.sides_px, (images.shape[2], images.shape[3])
        if self._resized and seen_px != sides_px:
            answers = self._resized(answers, seen_px, sides_px)
        return images, _Taught(targets=targets, answers={name: each.to(self._device) for name, each in answers.items()})

    def drawn(self) -> Drawn:
        return self._source.drawn()


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The parts of a task that `training.train.train` needs, and the teacher for distillation."""

    task: Task
    teacher: Teacher | None = None
    """Used only if the recipe's `distill_weight` is above 0. Without a teacher, the loss is that of the targets alone.
    """

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
        batches = self.task.make_batches(images, targets, recipe, mean=mean, std=std, device=device, seed=seed)
        if self.teacher is None or not recipe.distill_weight:
            return batches
        return _TaughtBatches(batches, self.teacher, self.task, device)

    def loss(self, answers: Any, targets: Any, recipe: Recipe) -> Tensor:
        """Return the sum of the task's weighted loss terms for a module's outputs.

        With a teacher, `distill_weight` is the share of the distillation terms in the sum.
        """
        outputs = named(self.task.output_names, answers)
        if not isinstance(targets, _Taught):
            return _sum(self.task.losses(outputs, targets, recipe))
        taught = self.task.distill_losses(outputs, targets.answers, temperature=recipe.distill_temperature)
        share = recipe.distill_weight
        return (1 - share) * _sum(self.task.losses(outputs, targets.targets, recipe)) + share * _sum(taught)


def _sum(terms: Mapping[str, Tensor]) -> Tensor:
    first, *others = terms.values()
    for term in others:
        first = first + term
    return first


def plain_loss(task: Task, recipe: Recipe) -> Callable[[Any, Any], Tensor]:
    """Return a function of a module's outputs and the targets, by which channels, blocks and rounding are judged.

    It is the loss by which the recipe trains, without label smoothing and without a teacher. Outputs that this loss
    leaves untrained must not count: the class logits of a detector, for example, mean nothing where its recipe trains
    them at objects only.
    """
    objective, plain = Objective(task=task), replace(recipe, label_smoothing=0.0)
    return lambda answers, targets: objective.loss(answers, targets, plain)


def torch_divergence(task: Task) -> Callable[[Any, Any], Tensor]:
    """Return a function that gives the divergence of a module's outputs (first) from its teacher's (second).

    The result has gradients.
    """
    return lambda answers, wanted: task.torch_divergence(
        named(task.output_names, wanted), named(task.output_names, answers)
    )


def score_torch(task: Task, metric: Metric, answers: Iterable[Any], targets: Any) -> float:
    """Return the score of a module's outputs against the targets of all images, in order.

    Args:
        task: The task.
        metric: A metric of the task; it is reset first.
        answers: The module's outputs, batch by batch.
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
