"""Fit a network to batches: one update of its weights for each learning rate."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from scalesearch.memory_layouts import laid_out
from scalesearch.strided_convolutions import sound_convolutions
from scalesearch.training.batches import BatchSource
from scalesearch.training.machine import on_device
from scalesearch.training.optimizers import make_optimizers
from scalesearch.training.schedule import rates as all_rates
from scalesearch.training.state import TrainingState, moments_of, random_states, restore_moments, restore_random
from scalesearch.values.candidate import Recipe
from scalesearch.values.network import Network
from scalesearch.values.settings import Machine
from scalesearch.values.training_length import trunk_steps

# Reading a number back from a GPU waits for the GPU, so health is checked only every few steps. This costs little: a
# network that becomes not finite is thrown away anyway.
_HEALTH_CHECK_STEPS: Final = 8


class NonFiniteError(Exception):
    """Loss, gradient or weights became infinite or NaN."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """The trained module on the CPU in eval mode, the loss of each step (steps,), and the state at the end."""

    module: nn.Module
    losses: Tensor
    state: TrainingState


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """The updates that a training makes: from which state, with which rates, and what happens around each of them."""

    seed: int
    """Seed of the order of images, augmentation and dropout."""
    rates: Sequence[float] | None = None
    """Share of the peak learning rate at each update; None takes the whole schedule of the recipe. Weights are averaged
    (`ema_decay`) from the first of these rates on, or from the branch of a whole schedule on."""
    start: TrainingState | None = None
    """The state of the training that this one continues; None begins one."""
    breathe: Callable[[], None] = lambda: None
    """Called once before every step. It may block for as long as something runs that training must not disturb."""
    after_step: Callable[[nn.Module], None] = lambda _: None
    """Called with the module in training after every update, before weights are averaged. It may change weights in
    place, for example to keep masked ones at zero."""

    def schedule(self, recipe: Recipe) -> tuple[Sequence[float], int]:
        """Return the rate of every update, and the update from which weights are averaged."""
        return (all_rates(recipe), trunk_steps(recipe)) if self.rates is None else (self.rates, 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attempt:
    """How a training is tried: as the recipe says, or once more with the safe recipe."""

    recipe: Recipe
    machine: Machine
    start: TrainingState | None
    max_norm: float = math.inf
    """Largest norm of the gradient; longer gradients are scaled down to it."""


def fit(
    network: Network,
    batches: BatchSource,
    loss_of: Callable[[Any, Any, Recipe], Tensor],
    attempt: Attempt,
    course: Course,
) -> Fitted:
    """Train a copy of the network's module, one update for each rate of the course.

    Args:
        network: The network to start from; it is not changed. A user's own module keeps its dropout, all others are
            given the recipe's.
        batches: Endless training batches.
        loss_of: The task's loss: takes what the module returns, the targets and the recipe.
        attempt: Recipe, machine and state to begin with. After a failure, the state is not that of the course.
        course: Seed and rates of the updates.

    Raises:
        NonFiniteError: Loss, gradient or weights became infinite or NaN.
    """
    recipe, machine, start = attempt.recipe, attempt.machine, attempt.start
    rates, average_from = course.schedule(recipe)
    module = on_device(network.module, machine).train()
    if not network.spec.origin:
        _set_dropout(module, recipe.dropout)
    average: AveragedModel | None = None
    optimizers = make_optimizers(module, recipe)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    if start:
        restore_moments(module, optimizers, start.moments)
        batches.restore(start.batches)
    losses: list[Tensor] = []
    health = torch.zeros((), device=machine.device)
    # Dropout draws from the global generators: seed them here and restore their state afterwards.
    forked = torch.random.fork_rng(devices=[machine.device] if machine.device != "cpu" else [])
    with forked, sound_convolutions(module):
        torch.manual_seed(course.seed)
        if start:
            restore_random(start.random, machine.device)
        for step, rate in enumerate(rates):
            course.breathe()
            if step == average_from and recipe.ema_decay > 0:
                average = _average(module, recipe.ema_decay)
            _set_rates(optimizers, peaks, rate)
            loss, norm = _backward(module, batches, loss_of, attempt)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            course.after_step(module)
            if average is not None:
                average.update_parameters(module)
            losses.append(loss.detach())
            health = health + 0 * (losses[-1] + norm)  # after one infinity or NaN it stays NaN
            if step % _HEALTH_CHECK_STEPS == 0 or step == len(rates) - 1:
                _check_finite(health, f"loss or gradient not finite by step {step + 1} of {len(rates)}")
        random = random_states(machine.device)
    state = TrainingState(moments=moments_of(module, optimizers), batches=batches.state(), random=random)
    trained = (module if average is None else average.module).cpu().to(memory_format=torch.contiguous_format).eval()
    for tensor in trained.state_dict().values():
        _check_finite(tensor, "weights not finite at the end")
    return Fitted(module=trained, losses=torch.stack(losses).cpu(), state=state)


def _backward(
    module: nn.Module, batches: BatchSource, loss_of: Callable[[Any, Any, Recipe], Tensor], attempt: Attempt
) -> tuple[Tensor, Tensor]:
    """Set every weight's gradient from the next batch's loss; return the loss and the norm of the gradient."""
    machine = attempt.machine
    images, wanted = batches.next()
    with torch.autocast(torch.device(machine.device).type, dtype=torch.bfloat16, enabled=machine.bf16):
        answers = module(laid_out(images, module, channels_last=machine.channels_last))
    loss = loss_of(_in_float(answers), wanted, attempt.recipe)
    torch.autograd.backward(loss)
    parameters = [weight for weight in module.parameters() if weight.requires_grad]
    norm = nn.utils.get_total_norm([weight.grad for weight in parameters if weight.grad is not None])
    if math.isfinite(attempt.max_norm):
        nn.utils.clip_grads_with_norm_(parameters, attempt.max_norm, norm)
    return loss, norm


def _in_float(answers: Any) -> Any:
    """Return a module's answers, one tensor or several, in float32: losses are computed in full precision."""
    return tuple(each.float() for each in answers) if isinstance(answers, tuple) else answers.float()


def _set_dropout(module: nn.Module, dropout: float) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = dropout


def _average(module: nn.Module, decay: float) -> AveragedModel:
    """Make an exponential moving average of weights and BatchNorm statistics; its decay rises over the first steps.

    Without this rise, by (1 + n) / (10 + n) as in TensorFlow's averages, a brief training would mostly average its
    start.
    """

    def blend(averaged: Tensor, current: Tensor, done: Tensor | int) -> Tensor:
        kept = min(decay, (1 + int(done)) / (10 + int(done)))
        return averaged.lerp(current, 1 - kept) if averaged.is_floating_point() else current

    return AveragedModel(module, avg_fn=blend, use_buffers=True)


def _set_rates(optimizers: list[torch.optim.Optimizer], peaks: list[list[float]], factor: float) -> None:
    for optimizer, rates in zip(optimizers, peaks, strict=True):
        for group, peak in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = factor * peak


def _check_finite(values: Tensor, message: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise NonFiniteError(message)
