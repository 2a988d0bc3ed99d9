"""A task's parts as training takes them, with a teacher and without."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toy_task.task import TASK as TOY

from scalesearch.networks import base_spec
from scalesearch.networks.build import build
from scalesearch.tasks.classification.task import TASK
from scalesearch.tasks.detection.losses import detection_losses
from scalesearch.tasks.detection.task import TASK as DETECTION
from scalesearch.tasks.detection.teaching import resized, taught_losses
from scalesearch.tasks.hooks import Objective, plain_loss
from scalesearch.training.batches import Drawn
from scalesearch.training.fit import Course
from scalesearch.training.losses import cross_entropy, distillation, focal
from scalesearch.training.train import Examples, Trained, train
from scalesearch.values.candidate import LossWeights, Recipe
from scalesearch.values.settings import Machine

IMAGES = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3
RECIPE = Recipe(
    steps=6, batch_size=4, optimizer="adamw", learning_rate=0.01, label_smoothing=0.0, warmup_steps=1, flip=True
)
MACHINE = Machine(device="cpu", threads=1, bf16=False, channels_last=False)
STD = (0.25, 0.25, 0.25)
NETWORK = build(replace(base_spec("resnet_small"), resolution_px=16, num_classes=3), TASK.make_module, seed=0)


class NumberTeacher:
    """Answers with the number of the image, and with its negative for a mirrored one."""

    sides_px = (16, 16)

    def __init__(self) -> None:
        self.asked = 0

    def answers(self, drawn: Drawn) -> dict[str, Tensor]:
        self.asked += 1
        number = torch.where(drawn.mirrored, -1.0, 1.0) * drawn.indices
        return {"logits": torch.stack([number, -number, 0 * number], dim=1)}


def trained(recipe: Recipe, objective: Objective) -> Trained:
    examples = Examples(images=IMAGES, targets=LABELS, mean=(0.5, 0.5, 0.5), std=STD)
    return train(NETWORK, examples, recipe, MACHINE, Course(seed=5), objective=objective)


def test_the_loss_is_shared_between_the_targets_and_the_teacher_of_the_very_images() -> None:
    recipe = replace(RECIPE, distill_weight=0.3, distill_temperature=2.0)
    objective = Objective(task=TASK, teacher=NumberTeacher())
    batches = objective.make_batches(
        IMAGES, LABELS, recipe, mean=(0.5, 0.5, 0.5), std=STD, device="cpu", seed=1
    )  # fmt: skip
    for _ in range(4):
        _, targets = batches.next()
        drawn = batches.drawn()
        logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
        number = torch.where(drawn.mirrored, -1.0, 1.0) * drawn.indices
        taught = torch.stack([number, -number, 0 * number], dim=1)
        expected = 0.7 * cross_entropy(logits, LABELS[drawn.indices], 0.0) + 0.3 * distillation(logits, taught, 2.0)
        torch.testing.assert_close(objective.loss(logits, targets, recipe), expected)


def test_a_teacher_is_not_asked_and_changes_no_bit_where_its_weight_is_zero() -> None:
    teacher = NumberTeacher()
    plain, beside = trained(RECIPE, Objective(task=TASK)), trained(RECIPE, Objective(task=TASK, teacher=teacher))
    assert teacher.asked == 0 and plain.losses == beside.losses
    ours, theirs = plain.network.module.state_dict(), beside.network.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    taught = trained(replace(RECIPE, distill_weight=0.5), Objective(task=TASK, teacher=teacher))
    assert teacher.asked == 6 and taught.losses != plain.losses


def test_a_task_of_two_outputs_is_taught_in_both() -> None:
    class Ones:
        sides_px = (16, 16)

        def answers(self, drawn: Drawn) -> dict[str, Tensor]:
            return {"level": torch.ones(4, 1), "cells": torch.ones(4, 1, 2, 2)}

    recipe = replace(RECIPE, distill_weight=1.0)
    objective = Objective(task=TOY, teacher=Ones())
    batches = objective.make_batches(IMAGES, LABELS, recipe, mean=(0.5,) * 3, std=STD, device="cpu", seed=1)
    _, targets = batches.next()
    loss = objective.loss((torch.zeros(4, 1), torch.full((4, 1, 2, 2), 0.5)), targets, recipe)
    assert loss.item() == pytest.approx(1.0 + 0.25)


def boxes(sides_px: tuple[int, int], images: int = 12) -> Tensor:
    """Return targets of images that hold one object of class 1 each, in the middle."""
    height, width = sides_px
    targets = torch.zeros(images, 2, 6)
    targets[:, 0, 2:5] = torch.tensor([width, height, -1.0])
    targets[:, 1, :5] = torch.tensor([0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height, 1.0])
    return targets


def raw_outputs(sides_px: tuple[int, int], images: int) -> Tensor:
    """Return random raw outputs of a detector of three classes with feature maps of strides 8, 16 and 32."""
    points = sum(sides_px[0] * sides_px[1] // stride**2 for stride in (8, 16, 32))
    return torch.randn(images, 8, points, generator=torch.Generator().manual_seed(images))


def test_a_detector_is_judged_by_the_loss_that_it_is_trained_by() -> None:
    recipe = Recipe(loss="bce", label_smoothing=0.2, loss_weights=LossWeights(class_=2.0, box=3.0), distill_weight=0.5)
    raw, targets = raw_outputs((64, 96), 2), boxes((64, 96), 2)
    judge = plain_loss(DETECTION, recipe)
    terms = detection_losses(raw, targets, replace(recipe, label_smoothing=0.0))
    torch.testing.assert_close(judge(raw, targets), terms["class"] + terms["box"] + terms["objectness"])
    # Class logits of points without an object are trained by no term, so they must not count.
    elsewhere = raw.clone()
    elsewhere[:, 4:7, 0] += 3.0  # the point in the corner
    torch.testing.assert_close(judge(elsewhere, targets), judge(raw, targets))
    assert judge(raw, targets) != plain_loss(DETECTION, replace(recipe, loss_weights=LossWeights()))(raw, targets)


def test_a_classifier_is_judged_by_its_own_loss_without_smoothing() -> None:
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    recipe = replace(RECIPE, loss="focal", label_smoothing=0.3)
    torch.testing.assert_close(plain_loss(TASK, recipe)(logits, LABELS), focal(logits, LABELS, 0.0))
    torch.testing.assert_close(plain_loss(TASK, Recipe())(logits, LABELS), cross_entropy(logits, LABELS, 0.0))


@pytest.mark.parametrize("seen_px", [(64, 96), (32, 64)])
def test_a_detector_is_taught_by_a_parent_of_another_size(seen_px: tuple[int, int]) -> None:
    ours_px, held = (32, 64), raw_outputs(seen_px, 12)

    class Parent:
        sides_px = seen_px

        def answers(self, drawn: Drawn) -> dict[str, Tensor]:
            return {"raw": held[drawn.indices]}

    recipe = replace(RECIPE, loss="bce", distill_weight=1.0, flip=False)
    objective = Objective(task=DETECTION, teacher=Parent())
    images = torch.zeros(12, 3, *ours_px, dtype=torch.uint8)
    batches = objective.make_batches(
        images, boxes(ours_px), recipe, mean=(0.5, 0.5, 0.5), std=STD, device="cpu", seed=1
    )  # fmt: skip
    _, targets = batches.next()
    answers = raw_outputs(ours_px, 4)
    taught = taught_losses(answers, resized(held[batches.drawn().indices], seen_px, ours_px))
    torch.testing.assert_close(objective.loss(answers, targets, recipe), torch.stack([*taught.values()]).sum())
