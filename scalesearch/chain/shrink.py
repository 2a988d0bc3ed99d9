"""Train the network of a plan and then make it smaller: remove blocks, channels and single weights, and retrain."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch

from scalesearch.chain.planner import Planner
from scalesearch.chain.stages import StageClock
from scalesearch.compression.blocks import drop_blocks
from scalesearch.compression.importance import Judged
from scalesearch.compression.prune import prunable_widths, prune
from scalesearch.compression.sensitivity import LayerSensitivity, channel_sensitivity, ratios_from_sensitivity
from scalesearch.compression.sparsity import apply_masks, masked, sparsity_masks
from scalesearch.data import Dataset, ImageSplit, to_input
from scalesearch.data.finding import load_study_data
from scalesearch.data.mapped import ImageSource, planes
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.networks.build import build
from scalesearch.tasks.base import Task
from scalesearch.tasks.hooks import Objective, plain_loss, score_torch
from scalesearch.tasks.registry import get_task
from scalesearch.training.train import answers, train
from scalesearch.training.weights import KeptTraining, WeightStore
from scalesearch.values.candidate import Candidate, Pruning, Recipe
from scalesearch.values.identity import content_hash, seed_from
from scalesearch.values.network import Network
from scalesearch.values.plan import Plan
from scalesearch.values.record import LossCurve, TrainingResult
from scalesearch.values.session import Session

_JUDGING_IMAGES = 256
_TAYLOR_IMAGES = 128
_SENSITIVITY_FRACTIONS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
_DATA_FREE = ("l1", "l2", "bn_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """The network that a plan asks for, the dense network that it was made from, and how training went."""

    network: Network
    dense: Network
    dense_score: float
    """Score of the dense network on the validation images, as a fraction."""
    training: TrainingResult


class Shrinker:
    """Trains, prunes and retrains networks; all weights are stored by what they depend on and reused from there."""

    def __init__(self, session: Session, lock: DeviceLock) -> None:
        self._session = session
        self._lock = lock
        self._weights = WeightStore(session.folder / "weights")
        self._task = get_task(session.settings.task)

    def __call__(self, plan: Plan, data: Dataset, stages: StageClock) -> Shrunk:
        """Return the plan's network, trained and pruned; weights that are already stored are not trained again.

        Blocks are removed before the first round of channel pruning, and zeros are set before the last retraining. So
        there is no further retraining for them, and the retraining's steps are those of the recipe, however much is
        removed.
        """
        recipe = plan.candidate.recipe
        with stages("train"):
            untrained = build(
                plan.spec, self._task.make_module, dropout=recipe.dropout, seed=seed_from("init", plan.weights_key)
            )
            dense, kept, reused = self._stored_or_trained(plan.weights_key, untrained, data, recipe, steps=recipe.steps)
        if not plan.pruning.any:
            training = _training_result(kept, (), reused=reused)
            return Shrunk(network=dense, dense=dense, dense_score=kept.float_score, training=training)
        network, retrainings, rounds = dense, list[KeptTraining](), plan.pruning.rounds
        cutter = _Cutter(plan, data, self._task, channel_multiple=self._session.target.channel_multiple)
        for number in range(1, rounds + 1):
            with stages("prune"):
                network = cutter.cut(network, number)
            key = plan.shape_key if number == rounds else content_hash(plan.shape_key, number)
            steps = recipe.retrain_steps * number // rounds - recipe.retrain_steps * (number - 1) // rounds
            with stages("retrain"):
                network, again, kept_too = self._stored_or_trained(
                    key, network, data, recipe, steps=steps, masks=cutter.masks
                )
            retrainings.append(again)
            reused = reused and kept_too
        training = _training_result(kept, tuple(retrainings), reused=reused)
        return Shrunk(network=network, dense=dense, dense_score=kept.float_score, training=training)

    def _stored_or_trained(
        self,
        key: str,
        network: Network,
        data: Dataset,
        recipe: Recipe,
        *,
        steps: int,
        masks: dict[str, torch.Tensor] | None = None,
    ) -> tuple[Network, KeptTraining, bool]:
        """Return the network with the weights stored under `key`; if there are none, train it now and store them.

        The retrain after pruning (left out if `steps` is 0) uses the whole recipe again, with warm-up and full rate: so
        few updates recover more that way than at a third of the rate.

        Returns:
            The network, what is known about its training, and whether its weights were stored before.
        """
        module = copy.deepcopy(network.module)
        kept = self._weights.load(key, module)
        if kept is not None:
            return Network(spec=network.spec, module=module.eval()), kept, True
        machine, loss, train_s, safe, losses = self._session.machine, 0.0, 0.0, False, tuple[float, ...]()
        paused_before_s = self._lock.paused_s
        if steps:
            trained = train(
                network,
                *tensors(data.train),
                recipe,
                machine,
                objective=Objective(task=self._task),
                mean=data.mean,
                std=data.std,
                seed=seed_from("train", key),
                steps=steps,
                breathe=self._lock.breathe,
                after_step=lambda module: apply_masks(module, masks or {}),
            )
            network, loss, train_s = trained.network, trained.final_loss, trained.seconds
            train_s -= self._lock.paused_s - paused_before_s
            safe, losses = trained.safe_recipe_used, trained.losses
        kept = KeptTraining(
            float_score=self._score(network, data),
            train_s=train_s,
            final_loss=loss,
            losses=losses,
            steps=steps,
            safe_recipe_used=safe,
        )
        self._weights.save(key, network.module, kept)
        return network, kept, False

    def _score(self, network: Network, data: Dataset) -> float:
        """Return the score of the torch module in float32 on the validation images, as a fraction."""
        images, targets = tensors(data.val)
        given = answers(network, images, self._session.machine, mean=data.mean, std=data.std)
        return score_torch(self._task, self._task.make_metric(data.class_names), given, targets)


class _Cutter:
    """Prunes one plan's network, round by round, judging by calibration images, which are never trained on."""

    def __init__(self, plan: Plan, data: Dataset, task: Task, *, channel_multiple: int) -> None:
        self._task, self._metric, self._plain_loss = task, task.make_metric(data.class_names), plain_loss(task)
        self._plan, self._pruning, self._multiple = plan, plan.pruning, channel_multiple
        images = data.calibration.images[:_JUDGING_IMAGES]
        self._images = torch.from_numpy(to_input(images, mean=data.mean, std=data.std))
        self._targets = torch.from_numpy(data.calibration.labels[:_JUDGING_IMAGES]).long()
        self._widths: dict[str, int] = {}
        self._ratios: dict[str, float] | None = None
        self.masks: dict[str, torch.Tensor] = {}
        """Masks by weight name, False where the retraining must keep a weight at zero."""

    def cut(self, network: Network, number: int) -> Network:
        """Return the network of round `number` (from 1), pruned but not yet retrained."""
        pruning = self._pruning
        if number == 1 and pruning.block_fraction > 0:
            network = drop_blocks(network, pruning.block_fraction, loss_without=self._loss)
        if pruning.channel_fraction > 0:
            network = self._fewer_channels(network, number)
        if number == pruning.rounds and pruning.sparsity != "none":
            self.masks = sparsity_masks(network, pruning)
            network = masked(network, self.masks)
        return network

    def _fewer_channels(self, network: Network, number: int) -> Network:
        pruning = self._pruning
        if number == 1:
            self._widths = dict(prunable_widths(network))
            if pruning.scope == "sensitivity":
                self._ratios = ratios_from_sensitivity(
                    self.sensitivity(network), budget_fraction=pruning.channel_fraction
                )
        share = number / pruning.rounds
        ratios = None if self._ratios is None else {name: share * each for name, each in self._ratios.items()}
        return prune(
            network,
            replace(pruning, channel_fraction=share * pruning.channel_fraction),
            channel_multiple=self._multiple,
            batch=Judged(
                images=self._images[:_TAYLOR_IMAGES], targets=self._targets[:_TAYLOR_IMAGES], loss=self._plain_loss
            ),
            seed=seed_from("prune", self._plan.shape_key, number),
            ratios=ratios,
            widths=self._widths,
        )

    @property
    def images(self) -> int:
        """Number of images that are judged on."""
        return len(self._targets)

    def sensitivity(self, network: Network) -> tuple[LayerSensitivity, ...]:
        """Measure how much score each layer loses when it alone loses channels."""
        return channel_sensitivity(
            network,
            fractions=_SENSITIVITY_FRACTIONS,
            score=self.score,
            channel_multiple=self._multiple,
            criterion=self._pruning.criterion if self._pruning.criterion in _DATA_FREE else "l2",
        )

    def score(self, network: Network) -> float:
        """Return the score on the images that are judged on, as a fraction."""
        return score_torch(self._task, self._metric, [self._answers(network)], self._targets)

    def _loss(self, network: Network) -> float:
        return float(self._plain_loss(self._answers(network), self._targets))

    def _answers(self, network: Network) -> Any:
        with torch.inference_mode():
            return network.module.eval()(self._images)


def layer_sensitivity(session: Session, candidate: Candidate) -> tuple[tuple[LayerSensitivity, ...], float, int]:
    """Measure how much score each layer of the candidate's dense network loses with its channels.

    The network's stored weights are used; if they are gone, it is trained again.

    Returns:
        The sensitivities, the score of the dense network as a fraction, and the number of images it is measured on.
    """
    dense = replace(candidate, pruning=Pruning())
    plan = Planner(session)(dense)
    lock = DeviceLock(MEASURED_DEVICE)
    with lock.busy():
        data = load_study_data(session).at(plan.spec.input_size)
        network = Shrinker(session, lock)(plan, data, StageClock()).network
        task = get_task(session.settings.task)
        cutter = _Cutter(plan, data, task, channel_multiple=session.target.channel_multiple)
        return cutter.sensitivity(network), cutter.score(network), cutter.images


def tensors(split: ImageSplit) -> tuple[torch.Tensor | ImageSource, torch.Tensor]:
    """Return a split's images, uint8 (N, C, H, W), and its labels (N,), as training takes them."""
    return planes(split.images), torch.from_numpy(split.labels)


def _training_result(dense: KeptTraining, again: tuple[KeptTraining, ...], *, reused: bool) -> TrainingResult:
    every = (dense, *again)
    return TrainingResult(
        float_score=every[-1].float_score,
        train_s=dense.train_s,
        retrain_s=sum(part.train_s for part in again),
        steps=sum(part.steps for part in every),
        safe_recipe_used=any(part.safe_recipe_used for part in every),
        weights_reused=reused,
        final_loss=every[-1].final_loss,
        loss_curves=tuple(LossCurve(steps=part.steps, losses=part.losses) for part in every if part.steps),
    )
