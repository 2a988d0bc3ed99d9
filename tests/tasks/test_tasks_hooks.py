"""A task's parts as training takes them, with a teacher and without."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toy_task.task import TASK as TOY

from scalesearch.networks import base_spec
from scalesearch.networks.build import build
from scalesearch.tasks.classification.task import TASK
from scalesearch.tasks.hooks import Objective
from scalesearch.training.batches import Drawn
from scalesearch.training.fit import Course
from scalesearch.training.losses import cross_entropy, distillation
from scalesearch.training.train import Examples, Trained, train
from scalesearch.values.candidate import Recipe
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
        def answers(self, drawn: Drawn) -> dict[str, Tensor]:
            return {"level": torch.ones(4, 1), "cells": torch.ones(4, 1, 2, 2)}

    recipe = replace(RECIPE, distill_weight=1.0)
    objective = Objective(task=TOY, teacher=Ones())
    batches = objective.make_batches(IMAGES, LABELS, recipe, mean=(0.5,) * 3, std=STD, device="cpu", seed=1)
    _, targets = batches.next()
    loss = objective.loss((torch.zeros(4, 1), torch.full((4, 1, 2, 2), 0.5)), targets, recipe)
    assert loss.item() == pytest.approx(1.0 + 0.25)
