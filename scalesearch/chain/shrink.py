"""Train the network of a plan and make it smaller: a trunk, a cut, and a branch of equal length for every candidate."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from scalesearch.chain.cutter import Cutter, cut_on_paper
from scalesearch.chain.one_trainer import OneTrainer
from scalesearch.chain.parts import NOTHING, Part, continued, ready, result
from scalesearch.chain.stages import StageClock
from scalesearch.chain.trainer import Trainer, keeping_zeros
from scalesearch.compression.kept_entries import kept_moments, numbered
from scalesearch.data import Dataset
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.training.fit import Course
from scalesearch.training.schedule import decay, trunk_rates
from scalesearch.training.weights import kept_training
from scalesearch.values.identity import content_hash, seed_from
from scalesearch.values.network import Network
from scalesearch.values.plan import Plan
from scalesearch.values.record import TrainingResult
from scalesearch.values.session import Session
from scalesearch.values.training_length import trunk_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """The network that a plan asks for, a dense network of its shape before pruning, and how training went."""

    network: Network
    dense: Network
    dense_score: float | None
    """Score of the dense network on the validation images after as many updates, as a fraction; None if no candidate
    has trained it by so many: none has yet, or the cut one was trained once more (schedule `cosine`)."""
    training: TrainingResult


class Shrinker:
    """Trains and prunes networks. Weights are stored under a key of everything they depend on, and are reused."""

    def __init__(self, session: Session, lock: DeviceLock) -> None:
        self._trainer = Trainer(session, lock)
        self._weights, self._starter = self._trainer.weights, self._trainer.starter
        self._channel_multiple = session.target.channel_multiple
        self._alone = OneTrainer(session.folder / "weights", lock)

    def __call__(self, plan: Plan, data: Dataset, stages: StageClock) -> Shrunk:
        """Return the plan's network, trained and pruned; weights that are already stored are not trained again."""
        return self._branched(plan, data, stages) if plan.trunk_key else self._retrained(plan, data, stages)

    def is_stored(self, plan: Plan) -> bool:
        """Tell whether the weights of the plan's network, trained and pruned, are there."""
        return self.score(plan) is not None

    def score(self, plan: Plan) -> float | None:
        """Return the validation score of the plan's network, trained and pruned; None if it is not stored."""
        return self._weights.score(plan.shape_key if plan.pruning.any else plan.weights_key)

    def untrained(self, plan: Plan) -> Network:
        """Return a network of the plan's shape with random weights, in eval mode."""
        dense = ready(self._starter.fresh(plan.spec, dropout=0.0, seed=0))
        return cut_on_paper(dense, plan.pruning, channel_multiple=self._channel_multiple)[-1]

    def _branched(self, plan: Plan, data: Dataset, stages: StageClock) -> Shrunk:
        """Return the network of a branch of the plan's trunk, cut where the branch begins.

        A dense network and all networks cut from it are trained by equally many updates: they share those of the trunk,
        and those of the branch are the network's own. The trunk of a larger network is cut to the plan's spec first.
        With several rounds of pruning, each round is followed by an equal part of the branch. What another process
        trains at this moment is waited for: the trunk, and the branch, which precisions of one network share.
        """
        with stages("train"):
            trunk = self._stored_trunk(plan)
            if trunk is None:
                with self._alone(plan.trunk_key, stages):
                    trunk = self._trunk(plan, data)
            if not (plan.pruning.any or plan.cut_from):
                with self._alone(plan.weights_key, stages):
                    return _unpruned(trunk, self._branch(plan, data, trunk), train_parts=2)
        whole = self._at_spec(plan, data, trunk, stages)
        if not plan.pruning.any:
            with stages("retrain"), self._alone(plan.weights_key, stages):
                return _unpruned(trunk, self._branch(plan, data, whole), train_parts=1)
        with stages.held(self._alone(plan.shape_key, stages)):
            branch = self._cut_branch(plan, data, whole, stages)
        return Shrunk(
            network=branch.network,
            dense=whole.network,
            dense_score=self._weights.score(plan.weights_key),
            training=result((trunk, branch), train_parts=1),
        )

    def _stored_trunk(self, plan: Plan) -> Part | None:
        """Return the trunk if it is stored in just this length: then nobody who lengthens it has to be waited for."""
        recipe, key, (spec, _) = plan.candidate.recipe, plan.trunk_key, plan.begun
        if not self._weights.has_trunk(key, trunk_steps(recipe)):
            return None
        network = self._starter.fresh(spec, dropout=recipe.dropout, seed=seed_from("init", key))
        found = self._weights.load_trunk(key, trunk_steps(recipe), network.module)
        if not found or found.kept.steps != trunk_steps(recipe):
            return None
        return Part(network=ready(network), kept=found.kept, state=found.state)

    def _trunk(self, plan: Plan, data: Dataset) -> Part:
        """Return the stored trunk, or train it now, starting from the longest stored trunk that is shorter."""
        stored = self._stored_trunk(plan)
        if stored:
            return stored
        recipe, key, (spec, _) = plan.candidate.recipe, plan.trunk_key, plan.begun
        steps = trunk_steps(recipe)
        network = self._starter.fresh(spec, dropout=recipe.dropout, seed=seed_from("init", key))
        begun = self._weights.load_trunk(key, steps, network.module)
        first = begun.kept.steps if begun else 0
        if begun is None:
            network = self._starter.start(network, data, recipe)
        every = trunk_rates(recipe)
        if not every:
            return Part(network=ready(network), kept=NOTHING)
        course = Course(seed=seed_from("train", key), rates=every[first:], start=begun.state if begun else None)
        trained, train_s = self._trainer.train(network, data, replace(recipe, ema_decay=0.0), course)
        kept = kept_training(trained, train_s, score=0.0)  # weights at a high rate: nobody deploys or scores them
        if begun:
            kept = continued(begun.kept, kept)
        self._weights.save_trunk(key, trained.network.module, kept, trained.state)
        return Part(network=trained.network, kept=kept, state=trained.state, new_steps=trained.steps)

    def _at_spec(self, plan: Plan, data: Dataset, trunk: Part, stages: StageClock) -> Part:
        """Return the trunk cut to the plan's spec, with the optimizer's moments of the weights that are left.

        A trunk that has that spec already is returned as it is.
        """
        if plan.cut_from is None:
            return trunk
        with stages("prune"):
            held, follower = ready(copy.deepcopy(trunk.network)), numbered(trunk.network.module)
            seed = seed_from("init", plan.weights_key)
            fresh = self._starter.fresh(plan.spec, dropout=plan.candidate.recipe.dropout, seed=seed)
            network = self._starter.inherited(held, fresh, data, plan.candidate.recipe, follower=follower)
            state = trunk.state and trunk.state.after(kept_moments(trunk.state.moments, trunk.network.module, follower))
        return replace(trunk, network=ready(network), state=state)

    def _branch(self, plan: Plan, data: Dataset, trunk: Part) -> Part:
        """Return the dense network at the end of its branch."""
        module = copy.deepcopy(trunk.network.module)
        kept = self._weights.load(plan.weights_key, module)
        if kept is not None:
            return Part(network=ready(replace(trunk.network, module=module)), kept=kept)
        course = Course(seed=seed_from("train", plan.trunk_key), rates=decay(plan.branch_updates), start=trunk.state)
        trained, train_s = self._trainer.train(trunk.network, data, plan.candidate.recipe, course)
        kept = kept_training(trained, train_s, score=self._trainer.score(trained.network, data))
        self._weights.save(plan.weights_key, trained.network.module, kept)
        return Part(network=trained.network, kept=kept, new_steps=kept.steps)

    def _cut_branch(self, plan: Plan, data: Dataset, trunk: Part, stages: StageClock) -> Part:
        """Return the network at the end of a branch on which it is cut, in one or several rounds."""
        rounds, every = plan.pruning.rounds, decay(plan.branch_updates)
        cutter = Cutter(plan, data, self._trainer.task, channel_multiple=self._channel_multiple)
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
        """Return the cut network after the round's share of the branch, from the store or trained now."""
        last = number == plan.pruning.rounds
        key = plan.shape_key if last else content_hash(plan.shape_key, number)
        network, state, kept = cut.network, cut.state, NOTHING
        module = copy.deepcopy(network.module)
        if last and (found := self._weights.load(key, module)):
            return Part(network=ready(replace(network, module=module)), kept=found)
        if not last and (begun := self._weights.load_trunk(key, len(share), module)):
            network = ready(replace(network, module=module))
            return Part(network=network, kept=begun.kept, state=begun.state)
        if share:  # there is none where a branch has fewer updates than rounds
            seed = seed_from("train", plan.trunk_key)
            course = Course(seed=seed, rates=share, start=state, after_step=keeping_zeros(masks))
            trained, train_s = self._trainer.train(network, data, plan.candidate.recipe, course)
            network, state, kept = trained.network, trained.state, kept_training(trained, train_s, score=0.0)
        if last:
            kept = replace(kept, float_score=self._trainer.score(network, data))
            self._weights.save(key, network.module, kept)
        elif share and state:
            self._weights.save_trunk(key, network.module, kept, state)
        return Part(network=network, kept=kept, state=state, new_steps=len(share))

    def _retrained(self, plan: Plan, data: Dataset, stages: StageClock) -> Shrunk:
        """Return the network as the schedule `cosine` makes it: trained to its end, cut, and trained once more.

        Blocks are removed before the first round of channel pruning, and zeros are set before the last retraining, so
        neither needs a retraining of its own, and the number of retraining steps is the recipe's, however much is
        removed. Each retraining goes through the whole schedule again, with warm-up and the full rate: with so few
        updates, this recovers more than a third of the rate does.
        """
        recipe = plan.candidate.recipe
        with stages("train"):
            seed = seed_from("init", plan.weights_key)
            fresh = self._starter.fresh(plan.spec, dropout=recipe.dropout, seed=seed)
            with self._alone(plan.weights_key, stages):
                dense = self._trainer.stored_or_trained(
                    plan.weights_key, fresh, data, recipe, start=self._starter.start
                )
        last, parts = dense, [dense]
        if plan.pruning.any:
            rounds = plan.pruning.rounds
            with stages.held(self._alone(plan.shape_key, stages)):
                cutter = Cutter(plan, data, self._trainer.task, channel_multiple=self._channel_multiple)
                for number in range(1, rounds + 1):
                    with stages("prune"):
                        network = cutter.cut(last.network, number)
                    key = plan.shape_key if number == rounds else content_hash(plan.shape_key, number)
                    steps = recipe.retrain_steps * number // rounds - recipe.retrain_steps * (number - 1) // rounds
                    with stages("retrain"):
                        last = self._trainer.stored_or_trained(
                            key, network, data, replace(recipe, steps=steps), cutter.masks
                        )
                    parts.append(last)
        return Shrunk(
            network=last.network,
            dense=dense.network,
            dense_score=None if any(part.kept.steps for part in parts[1:]) else dense.kept.float_score,
            training=result(parts, train_parts=1),
        )


def _unpruned(trunk: Part, branch: Part, *, train_parts: int) -> Shrunk:
    """Return the result of a branch on which nothing is pruned."""
    return Shrunk(
        network=branch.network,
        dense=branch.network,
        dense_score=branch.kept.float_score,
        training=result((trunk, branch), train_parts=train_parts),
    )
