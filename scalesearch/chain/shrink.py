"""A plan becomes a trained network, and then a smaller one: blocks, channels, single weights, each way retrained."""

import copy
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from scalesearch.chain.planner import Planner
from scalesearch.chain.stages import StageClock
from scalesearch.compression.blocks import drop_blocks
from scalesearch.compression.prune import prunable_widths, prune
from scalesearch.compression.sensitivity import LayerSensitivity, channel_sensitivity, ratios_from_sensitivity
from scalesearch.compression.sparsity import apply_masks, masked, sparsity_masks
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.networks.build import build
from scalesearch.study_data import load_study_data
from scalesearch.training.datasets import Dataset, ImageSplit, to_input
from scalesearch.training.train import score, train
from scalesearch.training.weights import KeptTraining, WeightStore
from scalesearch.values.candidate import Candidate, Pruning, Recipe
from scalesearch.values.identity import content_hash, seed_from
from scalesearch.values.network import Network
from scalesearch.values.plan import Plan
from scalesearch.values.record import LossCurve, TrainingResult
from scalesearch.values.session import Session

MEASURED_DEVICE = "cpu"
"""The lock that training and measuring meet at, whatever they run on: training on a GPU keeps the CPU busy as well."""
_JUDGING_IMAGES = 256
_TAYLOR_IMAGES = 128
_SENSITIVITY_FRACTIONS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
_DATA_FREE = ("l1", "l2", "bn_scale")


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
        if not plan.pruning.any:
            training = _training_result(kept, (), reused=reused)
            return Shrunk(network=dense, dense=dense, dense_top1=kept.float_top1, training=training)
        network, retrainings, rounds = dense, list[KeptTraining](), plan.pruning.rounds
        cutter = _Cutter(plan, data, self._session.target.channel_multiple)
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
        return Shrunk(network=network, dense=dense, dense_top1=kept.float_top1, training=training)

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
        machine, loss, train_s, safe, losses = self._session.machine, 0.0, 0.0, False, tuple[float, ...]()
        paused_before_s = self._lock.paused_s
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
            train_s -= self._lock.paused_s - paused_before_s
            safe, losses = trained.safe_recipe_used, trained.losses
        kept = KeptTraining(
            float_top1=score(network, *_tensors(data.val), machine, mean=data.mean, std=data.std),
            train_s=train_s,
            final_loss=loss,
            losses=losses,
            steps=steps,
            safe_recipe_used=safe,
        )
        self._weights.save(key, network.module, kept)
        return network, kept, False


class _Cutter:
    """Cuts one plan's network, round by round, judging by calibration images, which nothing is trained on."""

    def __init__(self, plan: Plan, data: Dataset, channel_multiple: int) -> None:
        self._plan, self._pruning, self._multiple = plan, plan.pruning, channel_multiple
        images = data.calibration.images[:_JUDGING_IMAGES]
        self._images = torch.from_numpy(to_input(images, mean=data.mean, std=data.std))
        self._labels = torch.from_numpy(data.calibration.labels[:_JUDGING_IMAGES]).long()
        self._widths: dict[str, int] = {}
        self._ratios: dict[str, float] | None = None
        self.masks: dict[str, torch.Tensor] = {}
        """What the retraining must keep at zero, by weight name (False: zero)."""

    def cut(self, network: Network, number: int) -> Network:
        """The network of round `number`, not yet retrained."""
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
            batch=(self._images[:_TAYLOR_IMAGES], self._labels[:_TAYLOR_IMAGES]),
            seed=seed_from("prune", self._plan.shape_key, number),
            ratios=ratios,
            widths=self._widths,
        )

    @property
    def images(self) -> int:
        """How many images judge."""
        return len(self._labels)

    def sensitivity(self, network: Network) -> tuple[LayerSensitivity, ...]:
        """What each layer loses in top-1 when it alone loses channels."""
        return channel_sensitivity(
            network,
            fractions=_SENSITIVITY_FRACTIONS,
            score=self.top1,
            channel_multiple=self._multiple,
            criterion=self._pruning.criterion if self._pruning.criterion in _DATA_FREE else "l2",
        )

    def top1(self, network: Network) -> float:
        """On the judging images, as a fraction."""
        return float((self._logits(network).argmax(dim=1) == self._labels).float().mean())

    def _loss(self, network: Network) -> float:
        return float(functional.cross_entropy(self._logits(network), self._labels))

    def _logits(self, network: Network) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = network.module.eval()(self._images)
        return logits


def layer_sensitivity(session: Session, candidate: Candidate) -> tuple[tuple[LayerSensitivity, ...], float, int]:
    """What each layer of the candidate's dense network loses with its channels; its top-1, and on how many images.

    The network comes from its kept weights, or, where those are gone, from training it again.
    """
    dense = replace(candidate, pruning=Pruning())
    plan = Planner(session)(dense)
    lock = DeviceLock(MEASURED_DEVICE)
    with lock.busy():
        data = load_study_data(session).at(plan.spec.resolution_px)
        network = Shrinker(session, lock)(plan, data, StageClock()).network
        cutter = _Cutter(plan, data, session.target.channel_multiple)
        return cutter.sensitivity(network), cutter.top1(network), cutter.images


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
        loss_curves=tuple(LossCurve(steps=part.steps, losses=part.losses) for part in every if part.steps),
    )
