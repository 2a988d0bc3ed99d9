"""Train and score a study's networks, and store their weights under a key of everything they depend on."""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from scalesearch.chain.examples import examples
from scalesearch.chain.inheritance import Starter
from scalesearch.chain.parts import NOTHING, Part, ready
from scalesearch.chain.teacher import Teacher
from scalesearch.compression.sparsity import apply_masks
from scalesearch.data import Dataset
from scalesearch.data.mapped import planes
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.tasks.hooks import Objective, score_torch
from scalesearch.tasks.registry import task_for
from scalesearch.training.answers import answers
from scalesearch.training.fit import Course
from scalesearch.training.schedule import rates
from scalesearch.training.train import Trained, train
from scalesearch.training.weights import WeightStore, kept_training
from scalesearch.values.candidate import Recipe
from scalesearch.values.identity import seed_from
from scalesearch.values.network import Network
from scalesearch.values.session import Session


class Trainer:
    """Trains networks on the study's task and machine, stores their weights and finds them again."""

    def __init__(self, session: Session, lock: DeviceLock) -> None:
        self.task = task_for(session.settings)
        self.weights = WeightStore(session.folder / "weights")
        self.starter = Starter(session, lock)
        """Makes the network from which a training begins."""
        self._machine, self._lock = session.machine, lock
        self._teacher = Teacher(session, lock, self.starter.parent)

    def train(self, network: Network, data: Dataset, recipe: Recipe, course: Course) -> tuple[Trained, float]:
        """Train a copy of the network; return it with the seconds of training.

        Time in which the training waited for a measurement is not counted.
        """
        teacher = self._teacher.ready(recipe) if recipe.distill_weight else None
        paused_before_s = self._lock.paused_s
        trained = train(
            network,
            examples(data),
            recipe,
            self._machine,
            replace(course, breathe=self._lock.breathe),
            objective=Objective(task=self.task, teacher=teacher),
        )
        return trained, trained.seconds - (self._lock.paused_s - paused_before_s)

    def stored_or_trained(
        self,
        key: str,
        network: Network,
        data: Dataset,
        recipe: Recipe,
        masks: dict[str, torch.Tensor] | None = None,
        *,
        start: Callable[[Network, Dataset, Recipe], Network] = lambda network, *_: network,
    ) -> Part:
        """Return the network with the weights stored under `key`; if there are none, train it now and store them.

        Training begins from the network that `start` returns. If the recipe has no steps (no retraining after pruning),
        that network is stored as it is.
        """
        module = copy.deepcopy(network.module)
        kept = self.weights.load(key, module)
        if kept is not None:
            return Part(network=ready(replace(network, module=module)), kept=kept)
        kept, network = NOTHING, start(network, data, recipe)
        if recipe.steps:
            course = Course(seed=seed_from("train", key), rates=rates(recipe), after_step=keeping_zeros(masks))
            trained, train_s = self.train(network, data, recipe, course)
            network, kept = trained.network, kept_training(trained, train_s, score=0.0)
        kept = replace(kept, float_score=self.score(network, data))
        self.weights.save(key, network.module, kept)
        return Part(network=network, kept=kept, new_steps=kept.steps)

    def score(self, network: Network, data: Dataset) -> float:
        """Return the score of the torch module in float32 on the validation images, as a fraction."""
        given = answers(network, planes(data.val.images), self._machine, mean=data.mean, std=data.std)
        return score_torch(self.task, self.task.make_metric(data.class_names), given, data.val.targets)


def keeping_zeros(masks: dict[str, torch.Tensor] | None) -> Callable[[nn.Module], None]:
    """Return a function that sets masked weights to zero, for `Course.after_step`.

    Args:
        masks: Masks by weight name, each of the shape of its weight, False where a weight stays zero; None for none.
    """
    return lambda module: apply_masks(module, masks or {})
