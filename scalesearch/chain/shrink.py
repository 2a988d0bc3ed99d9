"""A plan becomes a trained network, and then a smaller one: blocks, channels, single weights, each way retrained."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from scalesearch.chain.planner import round_pruning
from scalesearch.chain.stages import StageClock
from scalesearch.compression.blocks import drop_blocks
from scalesearch.compression.prune import prune
from scalesearch.compression.sparsity import apply_masks, sparsity_masks
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.networks.build import build
from scalesearch.training.datasets import Dataset, ImageSplit, to_input
from scalesearch.training.train import score, train
from scalesearch.training.weights import KeptTraining, WeightStore
from scalesearch.values.candidate import Recipe
from scalesearch.values.identity import content_hash, seed_from
from scalesearch.values.network import Network
from scalesearch.values.plan import Plan
from scalesearch.values.record import TrainingResult
from scalesearch.values.session import Session

_TAYLOR_IMAGES = 128
_BLOCK_IMAGES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """The network that a plan asks for, the dense one that it came from, and how training went."""

    network: Network
    dense: Network
    dense_top1: float
    """Top-1 of the dense network on the validation images, as a fraction."""
    training: TrainingResult


class Shrinker:
    """Trains, cuts and retrains; every set of weights is kept by what it depends on, and comes back from there."""

    def __init__(self, session: Session, lock: DeviceLock) -> None:
        self._session = session
        self._lock = lock
        self._weights = WeightStore(session.folder / "weights")

    def __call__(self, plan: Plan, data: Dataset, stages: StageClock) -> Shrunk:
        """The plan's network, trained; nothing is trained whose weights are kept.

        Blocks leave before the first round of channels, zeros are set before the last retraining: so the retraining's
        steps are those of the recipe, however much is cut.
        """
        recipe = plan.candidate.recipe
        with stages("train"):
            untrained = build(plan.spec, dropout=recipe.dropout, seed=seed_from("init", plan.weights_key))
            dense, kept, reused = self._stored_or_trained(plan.weights_key, untrained, data, recipe, steps=recipe.steps)
        if not plan.cuts:
            training = _training_result(kept, (), reused=reused)
            return Shrunk(network=dense, dense=dense, dense_top1=kept.float_top1, training=training)
        network, retrainings, rounds = dense, list[KeptTraining](), plan.candidate.pruning.rounds
        for number in range(1, rounds + 1):
            with stages("prune"):
                network, masks = self._cut(network, plan, data, number)
            last = number == rounds
            key = plan.shape_key if last else content_hash(plan.shape_key, number)
            steps = recipe.retrain_steps * number // rounds - recipe.retrain_steps * (number - 1) // rounds
            with stages("retrain"):
                network, again, kept_too = self._stored_or_trained(key, network, data, recipe, steps=steps, masks=masks)
            retrainings.append(again)
            reused = reused and kept_too
        training = _training_result(kept, tuple(retrainings), reused=reused)
        return Shrunk(network=network, dense=dense, dense_top1=kept.float_top1, training=training)

    def _cut(self, network: Network, plan: Plan, data: Dataset, number: int) -> tuple[Network, dict[str, torch.Tensor]]:
        """The network of one round after cutting, and the masks that its retraining keeps."""
        pruning = plan.candidate.pruning
        if number == 1 and pruning.block_fraction > 0:
            images = self._tensor(data.calibration.images[:_BLOCK_IMAGES], data)
            labels = torch.from_numpy(data.calibration.labels[:_BLOCK_IMAGES])
            network = drop_blocks(network, pruning.block_fraction, loss_without=_loss_on(images, labels))
        batch = None
        if pruning.criterion == "taylor":
            images = self._tensor(data.calibration.images[:_TAYLOR_IMAGES], data)
            batch = images, torch.from_numpy(data.calibration.labels[:_TAYLOR_IMAGES])
        network = prune(
            network,
            round_pruning(pruning, number),
            channel_multiple=self._session.target.channel_multiple,
            batch=batch,
            seed=seed_from("prune", plan.shape_key, number),
        )
        masks: dict[str, torch.Tensor] = {}
        if number == pruning.rounds and pruning.sparsity != "none":
            masks = sparsity_masks(network, pruning)
            module = copy.deepcopy(network.module)
            apply_masks(module, masks)
            network = Network(spec=network.spec, module=module)
        return network, masks

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
        """The network with the weights kept under `key`, else trained now and kept; and whether they were kept.

        The retrain after pruning (`steps` 0 leaves it out) uses the whole recipe again, warm-up and full rate: so few
        updates recover more that way than at a third of the rate.
        """
        module = copy.deepcopy(network.module)
        kept = self._weights.load(key, module)
        if kept is not None:
            return Network(spec=network.spec, module=module.eval()), kept, True
        machine, loss, train_s, safe = self._session.machine, 0.0, 0.0, False
        if steps:
            trained = train(
                network,
                *_tensors(data.train),
                recipe,
                machine,
                mean=data.mean,
                std=data.std,
                seed=seed_from("train", key),
                steps=steps,
                breathe=self._lock.breathe,
                after_step=lambda module: apply_masks(module, masks or {}),
            )
            network, loss, train_s = trained.network, trained.final_loss, trained.seconds
            safe = trained.safe_recipe_used
        kept = KeptTraining(
            float_top1=score(network, *_tensors(data.val), machine, mean=data.mean, std=data.std),
            train_s=train_s,
            final_loss=loss,
            steps=steps,
            safe_recipe_used=safe,
        )
        self._weights.save(key, network.module, kept)
        return network, kept, False

    def _tensor(self, images: NDArray[np.uint8], data: Dataset) -> torch.Tensor:
        return torch.from_numpy(to_input(images, mean=data.mean, std=data.std))


def _loss_on(images: torch.Tensor, labels: torch.Tensor) -> Callable[[Network], float]:
    def loss(network: Network) -> float:
        with torch.inference_mode():
            return float(functional.cross_entropy(network.module.eval()(images), labels.long()))

    return loss


def _tensors(split: ImageSplit) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(split.images).permute(0, 3, 1, 2), torch.from_numpy(split.labels)


def _training_result(dense: KeptTraining, again: tuple[KeptTraining, ...], *, reused: bool) -> TrainingResult:
    every = (dense, *again)
    return TrainingResult(
        float_top1=every[-1].float_top1,
        train_s=dense.train_s,
        retrain_s=sum(part.train_s for part in again),
        steps=sum(part.steps for part in every),
        safe_recipe_used=any(part.safe_recipe_used for part in every),
        weights_reused=reused,
        final_loss=every[-1].final_loss,
    )
