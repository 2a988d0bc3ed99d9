"""Make the network that a training starts from: with random weights, or with weights of a trained parent."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from scalesearch.chain.examples import examples
from scalesearch.chain.teacher import Teacher
from scalesearch.compression.importance import Judged
from scalesearch.compression.inherit import inherit
from scalesearch.data import Dataset, to_input
from scalesearch.data.finding import load_study_data
from scalesearch.data.mapped import planes
from scalesearch.errors import ConfigError
from scalesearch.host import images_at_once
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.networks.build import build
from scalesearch.spaces.axes import largest_value
from scalesearch.tasks.hooks import Objective, plain_loss, score_torch
from scalesearch.tasks.registry import task_for
from scalesearch.training.answers import answers, together
from scalesearch.training.fit import Course
from scalesearch.training.train import train
from scalesearch.training.weights import KeptTraining, WeightStore, kept_training
from scalesearch.values.candidate import Recipe
from scalesearch.values.identity import content_hash, seed_from
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.parent import Parent, parent_folder
from scalesearch.values.session import Session

_JUDGING_IMAGES = 128
_BLOCK_IMAGES = 64
_BATCH = 32
_DEFAULT = Recipe()


def tuning_recipe(steps: int, like: Recipe = _DEFAULT) -> Recipe:
    """Return the recipe to fine-tune a parent: AdamW at a low rate, which keeps most of what was learnt before.

    Its loss, with label smoothing and weights, is that of `like`, a recipe of the parent's children: by another loss,
    its outputs would mean something else than theirs.
    """
    return Recipe(
        optimizer="adamw",
        learning_rate=1e-3,
        steps=steps,
        batch_size=_BATCH,
        schedule="cosine",
        warmup_fraction=0.1,
        branch_fraction=0.0,
        warmup_steps=0,
        loss=like.loss,
        label_smoothing=like.label_smoothing,
        loss_weights=like.loss_weights,
        class_weights=like.class_weights,
    )


def keep_found(network: Network, parent: Parent, study: Path) -> None:
    """Copy a parent's weights, as found, into the study's folder, so that the user's file is no longer needed."""
    WeightStore(parent_folder(study)).save(_found_key(parent), network.module, _UNTRAINED)


def is_kept(parent: Parent, study: Path) -> bool:
    """Tell whether a parent's weights, as found or fine-tuned, lie in the study's folder."""
    store = WeightStore(parent_folder(study))
    return any(store.score(key) is not None for key in (parent.key, _found_key(parent)))


def lay_kept(parent: Parent, study: Path, *, to: Path) -> bool:
    """Copy a parent's weights out of a study's folder into another folder; tell whether there were any.

    Those as found and those fine-tuned are copied, whichever there are.
    """
    store, kept = WeightStore(parent_folder(study)), WeightStore(parent_folder(to))
    keys = [key for key in (parent.key, _found_key(parent)) if store.score(key) is not None]
    for key in keys:
        store.copy(key, kept)
    return bool(keys)


def tuning_ahead(session: Session) -> str:
    """Return a line on the fine-tuning of the session's parent that is still to be done; empty if there is none."""
    parent = session.parent
    if parent is None or not parent.steps:
        return ""
    tuned = WeightStore(parent_folder(session.folder)).score(parent.key) is not None
    return "" if tuned else f"parent: fine-tuning it by {parent.steps} updates, once for the whole study"


class Starter:
    """Gives the networks from which a study's trainings start, and fine-tunes the study's parent once."""

    def __init__(self, session: Session, lock: DeviceLock) -> None:
        self._session, self._lock = session, lock
        self._task = task_for(session.settings)
        self._parent: Network | None = None

    def fresh(self, spec: NetworkSpec, *, dropout: float, seed: int) -> Network:
        """Return a network with random weights."""
        return build(spec, self._task.make_module, dropout=dropout, seed=seed)

    def start(self, fresh: Network, data: Dataset, recipe: Recipe) -> Network:
        """Return the network that a training of this spec starts from: `fresh` itself if the study has no parent.

        Args:
            fresh: The network with random weights.
            data: The study's images at the network's resolution; only the calibration images are used.
            recipe: That of the training; channels and blocks that are not inherited are chosen by its loss.
        """
        return fresh if self._session.parent is None else self.inherited(self.parent(), fresh, data, recipe)

    def inherited(
        self, held: Network, fresh: Network, data: Dataset, recipe: Recipe, *, follower: torch.nn.Module | None = None
    ) -> Network:
        """Return `fresh` with the weights that it inherits from another network, cut to its spec.

        Args:
            held: The trained network, in eval mode.
            fresh: As in `start`.
            data: As in `start`.
            recipe: As in `start`.
            follower: `numbered(held.module)`, which is cut in the same way, in place.
        """
        images = torch.from_numpy(to_input(data.calibration.images[:_JUDGING_IMAGES], mean=data.mean, std=data.std))
        targets = data.calibration.targets[:_JUDGING_IMAGES].tensor()[:]  # large masks are unpacked when indexed
        loss = plain_loss(self._task, recipe)

        def loss_without(network: Network) -> float:
            module, step = network.module.eval(), images_at_once(*data.size.sides)
            parts = torch.split(images[:_BLOCK_IMAGES], step)
            with torch.inference_mode():
                return float(loss(together(module(part) for part in parts), targets[:_BLOCK_IMAGES]))

        judged = Judged(images=images, targets=targets, loss=loss)
        return inherit(held, fresh, judged=judged, loss_without=loss_without, follower=follower)

    def parent(self, say: Callable[[str], None] = lambda _: None) -> Network:
        """Return the fine-tuned parent in eval mode; it is trained now if that has not been done yet.

        Raises:
            ConfigError: Its weights are no longer in the study's folder.
        """
        if self._parent is None:
            assert self._session.parent is not None
            self._parent = self._tuned(self._session.parent, say)
        return self._parent

    def _tuned(self, parent: Parent, say: Callable[[str], None]) -> Network:
        store = WeightStore(parent_folder(self._session.folder))
        network = build(parent.network, self._task.make_module)
        if store.load(parent.key, network.module):
            network.module.eval()
            return network
        if not store.load(_found_key(parent), network.module):
            message = (
                f"The weights of the parent, {parent.source}, are no longer in {parent_folder(self._session.folder)}.\n"
                "Put that folder back, or give the same command again: it reads the parent anew."
            )
            raise ConfigError(message)
        kept = _UNTRAINED
        data = load_study_data(self._session, self._task.sources()).at(parent.network.input_size)
        if parent.steps:
            trained = train(
                network,
                examples(data),
                parent.recipe or tuning_recipe(parent.steps),
                self._session.machine,
                Course(seed=seed_from("train", parent.key), breathe=self._lock.breathe),
                objective=Objective(task=self._task),
            )
            network = trained.network
            kept = kept_training(trained, trained.seconds, score=0.0)
        network.module.eval()
        given = answers(network, planes(data.val.images), self._session.machine, mean=data.mean, std=data.std)
        metric = self._task.make_metric(data.class_names)
        score = score_torch(self._task, metric, given, data.val.targets)
        store.save(parent.key, network.module, replace(kept, float_score=score))
        at = parent.network.input_size
        say(f"parent: {100 * score:.1f} % on the validation images at {at}, after {kept.steps} updates")
        return network


def tuned_apart(session: Session) -> tuple[str, ...]:
    """Fine-tune the session's parent if that was not done before; return lines that describe the result.

    This is meant to run in a process of its own. If candidates can learn from the parent's answers, these are computed
    here too, so that workers find them stored.
    """
    lines, lock = list[str](), DeviceLock(MEASURED_DEVICE)
    weight, flip = (largest_value(session.space.axes, f"training.{name}") for name in ("distill_weight", "flip"))
    with lock.busy():
        starter = Starter(session, lock)
        starter.parent(lines.append)
        if weight:
            Teacher(session, lock, starter.parent).ready(Recipe(distill_weight=weight, flip=bool(flip)))
    return tuple(lines)


_UNTRAINED = KeptTraining(float_score=0.0, train_s=0.0, final_loss=0.0, losses=(), steps=0, safe_recipe_used=False)


def _found_key(parent: Parent) -> str:
    return content_hash(parent.key, "as found")
