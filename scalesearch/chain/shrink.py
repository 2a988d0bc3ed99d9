"""Train the network of a plan and make it smaller: a trunk, a cut, and a branch of equal length for every candidate."""

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from scalesearch.chain.cutter import Cutter
from scalesearch.chain.inheritance import Starter
from scalesearch.chain.one_trainer import OneTrainer
from scalesearch.chain.parts import NOTHING, Part, continued, ready, result
from scalesearch.chain.planner import Planner
from scalesearch.chain.stages import StageClock
from scalesearch.chain.teacher import Teacher
from scalesearch.compression.kept_entries import kept_moments, numbered
from scalesearch.compression.sensitivity import LayerSensitivity
from scalesearch.compression.sparsity import apply_masks
from scalesearch.data import Dataset, ImageSplit
from scalesearch.data.finding import load_study_data
from scalesearch.data.mapped import ImageSource, planes
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.tasks.hooks import Objective, score_torch
from scalesearch.tasks.registry import get_task
from scalesearch.training.schedule import decay, rates, trunk_rates, trunk_steps
from scalesearch.training.state import TrainingState
from scalesearch.training.train import Trained, answers, train
from scalesearch.training.weights import WeightStore, kept_training
from scalesearch.values.candidate import Candidate, Pruning, Recipe
from scalesearch.values.identity import content_hash, seed_from
from scalesearch.values.network import Network
from scalesearch.values.plan import Plan
from scalesearch.values.record import TrainingResult
from scalesearch.values.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """The network that a plan asks for, a dense network of its shape before pruning, and how training went."""

    network: Network
    dense: Network
    dense_score: float | None
    """Score of the dense network on the validation images after as many updates, as a fraction; None if no candidate
    has trained it yet."""
    training: TrainingResult


class Shrinker:
    """Trains and prunes networks; all weights are stored by what they depend on and reused from there."""

    def __init__(self, session: Session, lock: DeviceLock) -> None:
        self._session = session
        self._lock = lock
        self._weights = WeightStore(session.folder / "weights")
        self._alone = OneTrainer(session.folder / "weights", lock)
        self._task = get_task(session.settings.task)
        self._starter = Starter(session, lock)
        self._teacher = Teacher(session, lock, self._starter.parent)

    def __call__(self, plan: Plan, data: Dataset, stages: StageClock) -> Shrunk:
        """Return the plan's network, trained and pruned; weights that are already stored are not trained again."""
        return self._branched(plan, data, stages) if plan.trunk_key else self._retrained(plan, data, stages)

    def _branched(self, plan: Plan, data: Dataset, stages: StageClock) -> Shrunk:
        """Return the network of a branch of the plan's trunk, cut where the branch begins.

        A dense network and every network cut from it make the same number of updates, and only the branch's are the
        network's own. The trunk of a larger network is cut to the plan's spec first. With several rounds of pruning,
        each begins an equal part of the branch.
        """
        with stages("train"):
            with self._alone(plan.trunk_key):
                trunk = self._trunk(plan, data)
            if not (plan.pruning.any or plan.cut_from):
                return _unpruned(trunk, self._branch(plan, data, trunk), train_parts=2)
        whole = self._at_spec(plan, data, trunk, stages)
        if not plan.pruning.any:
            with stages("retrain"):
                return _unpruned(trunk, self._branch(plan, data, whole), train_parts=1)
        branch = self._cut_branch(plan, data, whole, stages)
        return Shrunk(
            network=branch.network,
            dense=whole.network,
            dense_score=self._weights.score(plan.weights_key),
            training=result((trunk, branch), train_parts=1),
        )

    def _trunk(self, plan: Plan, data: Dataset) -> Part:
        """Return the trunk, stored or trained now; the longest shorter one that is stored is continued."""
        recipe, key, (spec, _) = plan.candidate.recipe, plan.trunk_key, plan.begun
        steps = trunk_steps(recipe)
        network = self._starter.fresh(spec, dropout=recipe.dropout, seed=seed_from("init", key))
        begun = self._weights.load_trunk(key, steps, network.module)
        if begun and begun.kept.steps == steps:
            return Part(network=ready(network), kept=begun.kept, stored=True, state=begun.state)
        first = begun.kept.steps if begun else 0
        if begun is None:
            network = self._starter.start(network, data)
        every = trunk_rates(recipe)
        if not every:
            return Part(network=network, kept=NOTHING, stored=False)
        trained, train_s = self._train(
            network,
            data,
            replace(recipe, ema_decay=0.0),
            seed=seed_from("train", key),
            rates=every[first:],
            start=begun.state if begun else None,
        )
        kept = kept_training(trained, train_s, score=0.0)  # weights at a high rate: nobody deploys or scores them
        if begun:
            kept = continued(begun.kept, kept)
        self._weights.save_trunk(key, trained.network.module, kept, trained.state)
        return Part(network=trained.network, kept=kept, stored=False, state=trained.state, new_steps=trained.steps)

    def _at_spec(self, plan: Plan, data: Dataset, trunk: Part, stages: StageClock) -> Part:
        """Return the trunk cut to the plan's spec, with the moments of what is left; the trunk itself if it has it."""
        if plan.cut_from is None:
            return trunk
        with stages("prune"):
            held, follower = ready(copy.deepcopy(trunk.network)), numbered(trunk.network.module)
            seed = seed_from("init", plan.weights_key)
            fresh = self._starter.fresh(plan.spec, dropout=plan.candidate.recipe.dropout, seed=seed)
            network = self._starter.inherited(held, fresh, data, follower=follower)
            state = trunk.state and trunk.state.after(kept_moments(trunk.state.moments, trunk.network.module, follower))
        return replace(trunk, network=ready(network), state=state)

    def _branch(self, plan: Plan, data: Dataset, trunk: Part) -> Part:
        """Return the dense network at the end of its branch."""
        module = copy.deepcopy(trunk.network.module)
        kept = self._weights.load(plan.weights_key, module)
        if kept is not None:
            return Part(network=ready(replace(trunk.network, module=module)), kept=kept, stored=True)
        recipe = plan.candidate.recipe
        trained, train_s = self._train(
            trunk.network,
            data,
            recipe,
            seed=seed_from("train", plan.trunk_key),
            rates=decay(plan.branch_updates),
            start=trunk.state,
        )
        kept = kept_training(trained, train_s, score=self._score(trained.network, data))
        self._weights.save(plan.weights_key, trained.network.module, kept)
        return Part(network=trained.network, kept=kept, stored=False, new_steps=kept.steps)

    def _cut_branch(self, plan: Plan, data: Dataset, trunk: Part, stages: StageClock) -> Part:
        """Return the network at the end of a branch on which it is cut, in one or several rounds."""
        rounds, every = plan.pruning.rounds, decay(plan.branch_updates)
        cutter = Cutter(plan, data, self._task, channel_multiple=self._session.target.channel_multiple)
        at, parts = trunk, list[Part]()
        for number in range(1, rounds + 1):
            with stages("prune"):
                follower = numbered(at.network.module)
                network = cutter.cut(at.network, number, follower=follower)
                state = at.state and at.state.after(kept_moments(at.state.moments, at.network.module, follower))
            share = every[len(every) * (number - 1) // rounds : len(every) * number // rounds]
            with stages("retrain"):
                at = self._round(plan, data, replace(at, network=network, state=state), number, share, cutter.masks)
            parts.append(at)
        return replace(
            at,
            kept=functools.reduce(continued, (part.kept for part in parts)),
            stored=all(part.stored for part in parts),
            new_steps=sum(part.new_steps for part in parts),
        )

    def _round(
        self,
        plan: Plan,
        data: Dataset,
        cut: Part,
        number: int,
        share: Sequence[float],
        masks: dict[str, torch.Tensor],
    ) -> Part:
        """Return the network, cut for the round, after the round's share of the branch, stored or trained now."""
        last = number == plan.pruning.rounds
        key = plan.shape_key if last else content_hash(plan.shape_key, number)
        network, state, kept = cut.network, cut.state, NOTHING
        module = copy.deepcopy(network.module)
        if last and (found := self._weights.load(key, module)):
            return Part(network=ready(replace(network, module=module)), kept=found, stored=True)
        if not last and (begun := self._weights.load_trunk(key, len(share), module)):
            network = ready(replace(network, module=module))
            return Part(network=network, kept=begun.kept, stored=True, state=begun.state)
        if share:  # there is none where a branch has fewer updates than rounds
            recipe, seed = plan.candidate.recipe, seed_from("train", plan.trunk_key)
            trained, train_s = self._train(network, data, recipe, seed=seed, rates=share, start=state, masks=masks)
            network, state, kept = trained.network, trained.state, kept_training(trained, train_s, score=0.0)
        if last:
            kept = replace(kept, float_score=self._score(network, data))
            self._weights.save(key, network.module, kept)
        elif share and state:
            self._weights.save_trunk(key, network.module, kept, state)
        return Part(network=network, kept=kept, stored=False, state=state, new_steps=len(share))

    def _retrained(self, plan: Plan, data: Dataset, stages: StageClock) -> Shrunk:
        """Return the network as the schedule `cosine` makes it: trained to its end, cut, and trained once more.

        Blocks are removed before the first round of channel pruning, and zeros are set before the last retraining. So
        there is no further retraining for them, and the retraining's steps are those of the recipe, however much is
        removed. Each retraining uses the whole schedule again, with warm-up and full rate: so few updates recover more
        that way than at a third of the rate.
        """
        recipe = plan.candidate.recipe
        with stages("train"):
            seed = seed_from("init", plan.weights_key)
            fresh = self._starter.fresh(plan.spec, dropout=recipe.dropout, seed=seed)
            with self._alone(plan.weights_key):
                dense = self._stored_or_trained(plan.weights_key, fresh, data, recipe, start=self._starter.start)
        last, parts = dense, [dense]
        if plan.pruning.any:
            rounds = plan.pruning.rounds
            cutter = Cutter(plan, data, self._task, channel_multiple=self._session.target.channel_multiple)
            for number in range(1, rounds + 1):
                with stages("prune"):
                    network = cutter.cut(last.network, number)
                key = plan.shape_key if number == rounds else content_hash(plan.shape_key, number)
                steps = recipe.retrain_steps * number // rounds - recipe.retrain_steps * (number - 1) // rounds
                with stages("retrain"):
                    last = self._stored_or_trained(key, network, data, replace(recipe, steps=steps), cutter.masks)
                parts.append(last)
        return Shrunk(
            network=last.network,
            dense=dense.network,
            dense_score=dense.kept.float_score,
            training=result(parts, train_parts=1),
        )

    def _stored_or_trained(
        self,
        key: str,
        network: Network,
        data: Dataset,
        recipe: Recipe,
        masks: dict[str, torch.Tensor] | None = None,
        *,
        start: Callable[[Network, Dataset], Network] = lambda network, _: network,
    ) -> Part:
        """Return the network with the weights stored under `key`; if there are none, train it now and store them.

        Training begins from what `start` makes of the network. Without any step (no retraining after pruning) it stays
        as it is.
        """
        module = copy.deepcopy(network.module)
        kept = self._weights.load(key, module)
        if kept is not None:
            return Part(network=ready(replace(network, module=module)), kept=kept, stored=True)
        kept, network = NOTHING, start(network, data)
        if recipe.steps:
            trained, train_s = self._train(
                network, data, recipe, seed=seed_from("train", key), rates=rates(recipe), masks=masks
            )
            network, kept = trained.network, kept_training(trained, train_s, score=0.0)
        kept = replace(kept, float_score=self._score(network, data))
        self._weights.save(key, network.module, kept)
        return Part(network=network, kept=kept, stored=False, new_steps=kept.steps)

    def _train(
        self,
        network: Network,
        data: Dataset,
        recipe: Recipe,
        *,
        seed: int,
        rates: Sequence[float],
        start: TrainingState | None = None,
        masks: dict[str, torch.Tensor] | None = None,
    ) -> tuple[Trained, float]:
        """Return the trained network, and the seconds of training without those in which it was held up."""
        teacher = self._teacher.ready(recipe) if recipe.distill_weight else None
        paused_before_s = self._lock.paused_s
        trained = train(
            network,
            *tensors(data.train),
            recipe,
            self._session.machine,
            objective=Objective(task=self._task, teacher=teacher),
            mean=data.mean,
            std=data.std,
            seed=seed,
            rates=rates,
            start=start,
            breathe=self._lock.breathe,
            after_step=lambda module: apply_masks(module, masks or {}),
        )
        return trained, trained.seconds - (self._lock.paused_s - paused_before_s)

    def _score(self, network: Network, data: Dataset) -> float:
        """Return the score of the torch module in float32 on the validation images, as a fraction."""
        given = answers(network, planes(data.val.images), self._session.machine, mean=data.mean, std=data.std)
        return score_torch(self._task, self._task.make_metric(data.class_names), given, data.val.targets)


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
        task = get_task(session.settings.task)
        data = load_study_data(session, task.sources()).at(plan.spec.input_size)
        network = Shrinker(session, lock)(plan, data, StageClock()).network
        cutter = Cutter(plan, data, task, channel_multiple=session.target.channel_multiple)
        return cutter.sensitivity(network), cutter.score(network), cutter.images


def tensors(split: ImageSplit) -> tuple[torch.Tensor | ImageSource, torch.Tensor]:
    """Return a split's images, uint8 (N, C, H, W), and its targets (N, ...), as training takes them."""
    return planes(split.images), split.targets.tensor()


def _unpruned(trunk: Part, branch: Part, *, train_parts: int) -> Shrunk:
    """Return the result of a branch on which nothing is pruned."""
    return Shrunk(
        network=branch.network,
        dense=branch.network,
        dense_score=branch.kept.float_score,
        training=result((trunk, branch), train_parts=train_parts),
    )
