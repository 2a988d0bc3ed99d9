"""Train a copy of a network on images, by a recipe."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from scalesearch.data.mapped import ImageSource
from scalesearch.data.normalisation import PerChannel
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.training.batches import BatchSource
from scalesearch.training.fit import Attempt, Course, Fitted, NonFiniteError, fit
from scalesearch.training.machine import torch_threads
from scalesearch.training.state import TrainingState
from scalesearch.values.candidate import Recipe
from scalesearch.values.network import Network
from scalesearch.values.settings import Machine

_logger = logging.getLogger(__name__)

_SAFE_GRADIENT_NORM: Final = 1.0
_FINAL_LOSS_FRACTION: Final = 0.1
_CURVE_POINTS: Final = 40
_STAGE: Final = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The result of training: a new network (eval mode, float32, on the CPU) and how training went."""

    network: Network
    final_loss: float
    """Mean training loss of the last tenth of the steps."""
    losses: tuple[float, ...]
    """Mean training loss of equal stretches of the steps, in order."""
    seconds: float
    steps: int
    safe_recipe_used: bool
    state: TrainingState
    """State from which the training can be continued."""


class Objective(Protocol):
    """The parts of a task that training needs."""

    def make_batches(
        self,
        images: Tensor | ImageSource,
        targets: Any,
        recipe: Recipe,
        *,
        mean: PerChannel,
        std: PerChannel,
        device: str,
        seed: int,
    ) -> BatchSource:
        """Return endless augmented batches of uint8 images (N, C, H, W) and their targets."""
        ...

    def loss(self, answers: Any, targets: Any, recipe: Recipe) -> Tensor:
        """Return the loss of what the module returned, averaged over the batch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Images to train on with their targets, and the constants that the images are normalised with."""

    images: Tensor | ImageSource
    """uint8 (N, C, H, W), at the resolution of the network's spec; or a source that gives them batch by batch."""
    targets: Any
    """One for each image, of the kind that the objective takes."""
    mean: PerChannel
    """Mean of each channel, of pixels in 0..1."""
    std: PerChannel
    """Standard deviation of each channel, of pixels in 0..1."""


def train(
    network: Network, examples: Examples, recipe: Recipe, machine: Machine, course: Course, *, objective: Objective
) -> Trained:
    """Train a copy of the network, one update for each rate; the given network stays as it is.

    Equal seed, machine and inputs give bit-equal weights on a CPU. The thread count must be equal too, since it changes
    the order of sums. A training in two parts, the second from the first one's network and state, gives the weights of
    one in a single part. If loss, gradients or weights become infinite or NaN, training starts over once, from the
    given network, with the safe recipe: AdamW at a third of its usual rate, clipped gradients, float32.

    Args:
        network: The network to start from, with its weights.
        examples: Images, targets and normalisation.
        recipe: How to train.
        machine: Device, threads and precision, from `probe_machine`.
        course: Seed, rates and start of the updates.
        objective: The task's batches and loss.

    Raises:
        ConfigError: There is nothing to train on, the number of targets differs from that of images, or there is no
            step to take.
        StageFailed: The images do not fit the spec, memory ran out, or the safe recipe diverged too.
    """
    steps = len(course.schedule(recipe)[0])
    _check_inputs(network, examples, steps)
    started = time.perf_counter()

    def fitted_by(attempt: Attempt) -> Fitted:
        batches = objective.make_batches(
            examples.images,
            examples.targets,
            attempt.recipe,
            mean=examples.mean,
            std=examples.std,
            device=attempt.machine.device,
            seed=course.seed,
        )
        return fit(network, batches, objective.loss, attempt, course)

    with torch_threads(machine):
        try:
            first = Attempt(recipe=recipe, machine=machine, start=course.start)
            fitted, safe_recipe_used = _with_safe_retry(fitted_by, first)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            reason = (
                f"out of memory at {recipe.batch_size} images of {network.spec.input_size}: lower training.batch_size"
            )
            raise StageFailed(_STAGE, reason) from error
    losses = fitted.losses
    return Trained(
        network=replace(network, module=fitted.module),
        final_loss=float(losses[-max(1, round(_FINAL_LOSS_FRACTION * steps)) :].mean()),
        losses=tuple(float(stretch.mean()) for stretch in losses.tensor_split(min(_CURVE_POINTS, steps))),
        seconds=time.perf_counter() - started,
        steps=steps,
        safe_recipe_used=safe_recipe_used,
        state=replace(fitted.state, safe_recipe_used=safe_recipe_used),
    )


def _with_safe_retry(fitted_by: Callable[[Attempt], Fitted], first: Attempt) -> tuple[Fitted, bool]:
    """Return the result, and whether the safe recipe was needed, now or in an earlier part of the training."""
    failure: NonFiniteError | None = None
    recipe, start = first.recipe, first.start
    if start is None or not start.safe_recipe_used:
        try:
            return fitted_by(first), False
        except NonFiniteError as error:
            failure, start = error, None  # the moments belong to another optimizer, and may be what went wrong
            _logger.warning("%s with %s: starting over with the safe recipe", failure, recipe.optimizer)
    safe = Attempt(
        recipe=_safe(recipe),
        machine=replace(first.machine, bf16=False),
        start=start,
        max_norm=_SAFE_GRADIENT_NORM,
    )
    try:
        return fitted_by(safe), True
    except NonFiniteError as second:
        reason = f"{failure or 'not finite'} with {recipe.optimizer}, then {second} with the safe recipe"
        raise StageFailed(_STAGE, f"{reason}: lower the learning rate") from second


def _is_out_of_memory(error: RuntimeError) -> bool:
    # On a GPU the error has a type of its own; on a CPU only its text shows the cause.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _check_inputs(network: Network, examples: Examples, steps: int) -> None:
    images, targets = examples.images, examples.targets
    if steps < 1:
        msg = f"training needs at least 1 step, got {steps}: raise training.steps or training.retrain_steps"
        raise ConfigError(msg)
    if not len(images) or len(images) != len(targets):
        msg = f"training needs images with one target each, got {len(images)} images and {len(targets)} targets"
        raise ConfigError(msg)
    sides = network.spec.input_size.sides
    if tuple(images.shape[2:]) != sides:
        reason = f"the network expects images of {sides[0]} x {sides[1]} px, got {tuple(images.shape[2:])}"
        raise StageFailed(_STAGE, reason)


def _safe(recipe: Recipe) -> Recipe:
    # SGD's usual rates are far too high for AdamW.
    usual = min(recipe.learning_rate, Recipe().learning_rate)
    return replace(recipe, optimizer="adamw", learning_rate=usual / 3)
