"""Train a copy of a network on images, by a recipe."""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from scalesearch.data.mapped import ImageSource
from scalesearch.data.normalisation import PerChannel, normalise
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.training.batches import BatchSource
from scalesearch.training.machine import torch_threads
from scalesearch.training.optimizers import make_optimizers
from scalesearch.training.schedule import rates as all_rates
from scalesearch.training.schedule import trunk_steps
from scalesearch.training.state import TrainingState, moments_of, random_states, restore_moments, restore_random
from scalesearch.values.candidate import Recipe
from scalesearch.values.network import Network
from scalesearch.values.settings import Machine

_logger = logging.getLogger(__name__)

# Reading a number back from a GPU waits for the GPU, so health is checked only every few steps. This costs little: a
# network that becomes not finite is thrown away anyway.
_HEALTH_CHECK_STEPS: Final = 8
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
    """From which the same training can be continued."""


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


class _NonFiniteError(Exception):
    """Loss, gradient or weights became infinite or NaN."""


def train(
    network: Network,
    images: Tensor | ImageSource,
    targets: Any,
    recipe: Recipe,
    machine: Machine,
    *,
    objective: Objective,
    mean: PerChannel,
    std: PerChannel,
    seed: int,
    rates: Sequence[float] | None = None,
    start: TrainingState | None = None,
    breathe: Callable[[], None] = lambda: None,
    after_step: Callable[[nn.Module], None] = lambda _: None,
) -> Trained:
    """Train a copy of the network, one update for each rate; the given network stays as it is.

    Equal seed, machine and inputs give bit-equal weights on a CPU. The thread count must be equal too, since it changes
    the order of sums. A training in two parts, the second from the first one's network and state, gives the weights of
    one in a single part. If loss, gradients or weights become infinite or NaN, training starts over once, from the
    given network, with the safe recipe: AdamW at a third of its usual rate, clipped gradients, float32.

    Args:
        network: The network to start from, with its weights.
        images: uint8 (N, C, H, W), at the resolution of the network's spec; or a source that gives them batch by batch.
        targets: One for each image, of the kind that the objective takes.
        recipe: How to train.
        machine: Device, threads and precision, from `probe_machine`.
        objective: The task's batches and loss.
        mean: Mean of each channel, of pixels in 0..1.
        std: Standard deviation of each channel, of pixels in 0..1.
        seed: Seed of the order of images, augmentation and dropout.
        rates: Share of the peak learning rate at each update; None takes the whole schedule of the recipe. Averages of
            weights (`ema_decay`) begin with the first rate, or with the branch of a whole schedule.
        start: The state of the training that this one continues; None begins one.
        breathe: Called once before every step. It may block for as long as something runs that training must not
            disturb.
        after_step: Called with the module in training after every update, before weights are averaged. It may change
            weights in place, for example to keep masked ones at zero.

    Raises:
        ConfigError: There is nothing to train on, the number of targets differs from that of images, or there is no
            step to take.
        StageFailed: The images do not fit the spec, memory ran out, or the safe recipe diverged too.
    """
    average_from = trunk_steps(recipe) if rates is None else 0
    rates = all_rates(recipe) if rates is None else rates
    _check_inputs(network, images, targets, len(rates))
    started = time.perf_counter()

    def attempt(chosen: Recipe, on: Machine, max_norm: float, begin: TrainingState | None) -> _Fitted:
        batches = objective.make_batches(images, targets, chosen, mean=mean, std=std, device=on.device, seed=seed)
        return _fit(
            network.module,
            batches,
            objective.loss,
            chosen,
            on,
            rates=rates,
            average_from=average_from,
            start=begin,
            seed=seed,
            max_norm=max_norm,
            breathe=breathe,
            after_step=after_step,
        )

    with torch_threads(machine):
        try:
            fitted, safe_recipe_used = _with_safe_retry(attempt, recipe, machine, start)
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
        final_loss=float(losses[-max(1, round(_FINAL_LOSS_FRACTION * len(rates))) :].mean()),
        losses=tuple(float(stretch.mean()) for stretch in losses.tensor_split(min(_CURVE_POINTS, len(rates)))),
        seconds=time.perf_counter() - started,
        steps=len(rates),
        safe_recipe_used=safe_recipe_used,
        state=replace(fitted.state, safe_recipe_used=safe_recipe_used),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fitted:
    """The trained module on the CPU in eval mode, the loss of each step (steps,), and the state at the end."""

    module: nn.Module
    losses: Tensor
    state: TrainingState


def _with_safe_retry(
    attempt: Callable[[Recipe, Machine, float, TrainingState | None], _Fitted],
    recipe: Recipe,
    machine: Machine,
    start: TrainingState | None,
) -> tuple[_Fitted, bool]:
    """Return the result, and whether the safe recipe was needed, now or where the training was begun."""
    first: _NonFiniteError | None = None
    if start is None or not start.safe_recipe_used:
        try:
            return attempt(recipe, machine, math.inf, start), False
        except _NonFiniteError as error:
            first, start = error, None  # the moments belong to another optimizer, and may be what went wrong
            _logger.warning("%s with %s: starting over with the safe recipe", first, recipe.optimizer)
    try:
        return attempt(_safe(recipe), replace(machine, bf16=False), _SAFE_GRADIENT_NORM, start), True
    except _NonFiniteError as second:
        reason = f"{first or 'not finite'} with {recipe.optimizer}, then {second} with the safe recipe"
        raise StageFailed(_STAGE, f"{reason}: lower the learning rate") from second


def _is_out_of_memory(error: RuntimeError) -> bool:
    # On a GPU the error has a type of its own, on a CPU only the text tells it.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def answers(
    network: Network,
    images: Tensor | ImageSource,
    machine: Machine,
    *,
    mean: PerChannel,
    std: PerChannel,
    batch: int = 256,
) -> Iterator[Any]:
    """Yield what the torch module returns in float32 for each batch of images, in order.

    Args:
        network: It is not changed.
        images: uint8 (N, C, H, W), at the resolution of the network's spec.
        machine: Device, threads and memory layout.
        mean: Mean of each channel, of pixels in 0..1.
        std: Standard deviation of each channel, of pixels in 0..1.
        batch: Images per batch.

    Raises:
        StageFailed: An answer holds NaN or infinity: such answers cannot be ranked.
    """
    answer = answering(network, machine, mean=mean, std=std)
    with torch_threads(machine), torch.inference_mode():
        for chunk in _chunks(images, batch):
            returned = answer(chunk)
            _refuse_broken(returned, len(chunk))
            yield returned


def answering(network: Network, machine: Machine, *, mean: PerChannel, std: PerChannel) -> Callable[[Tensor], Any]:
    """Return a function of images, uint8 (n, C, H, W), that returns what the torch module answers in eval mode.

    It works on a copy of the module. The caller decides on threads and on gradients.
    """
    module = _on_device(network.module, machine).eval()
    return lambda images: module(_laid_out(normalise(images.to(machine.device), mean=mean, std=std), machine))


def _chunks(images: Tensor | ImageSource, size: int) -> Iterator[Tensor]:
    """Yield all images in order, uint8 (at most `size`, C, H, W) at a time."""
    if isinstance(images, Tensor):
        yield from torch.split(images, size)
        return
    for start in range(0, len(images), size):
        yield images.take(torch.arange(start, min(start + size, len(images))))


def _refuse_broken(returned: Any, images: int) -> None:
    for tensor in returned if isinstance(returned, tuple) else (returned,):
        broken = int((~tensor.isfinite().flatten(1).all(dim=1)).sum())
        if broken:
            reason = f"the trained network answers NaN or infinity for {broken} of {images} images of a batch"
            raise StageFailed(_STAGE, f"{reason}: lower the learning rate")


def _check_inputs(network: Network, images: Tensor | ImageSource, targets: Any, steps: int) -> None:
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


def _fit(
    module: nn.Module,
    batches: BatchSource,
    loss_of: Callable[[Any, Any, Recipe], Tensor],
    recipe: Recipe,
    machine: Machine,
    *,
    rates: Sequence[float],
    average_from: int,
    start: TrainingState | None,
    seed: int,
    max_norm: float,
    breathe: Callable[[], None],
    after_step: Callable[[nn.Module], None],
) -> _Fitted:
    """Train a copy of the module, one update for each rate."""
    module = _on_device(module, machine).train()
    _set_dropout(module, recipe.dropout)
    average: AveragedModel | None = None
    parameters = [weight for weight in module.parameters() if weight.requires_grad]
    optimizers = make_optimizers(module, recipe)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    if start:
        restore_moments(module, optimizers, start.moments)
        batches.restore(start.batches)
    losses: list[Tensor] = []
    health = torch.zeros((), device=machine.device)
    # Dropout draws from the global generators: seed them here and restore their state afterwards.
    with torch.random.fork_rng(devices=[machine.device] if machine.device != "cpu" else []):
        torch.manual_seed(seed)
        if start:
            restore_random(start.random, machine.device)
        for step, rate in enumerate(rates):
            breathe()
            if step == average_from and recipe.ema_decay > 0:
                average = _average(module, recipe.ema_decay)
            _set_rates(optimizers, peaks, rate)
            images, wanted = batches.next()
            with torch.autocast(torch.device(machine.device).type, dtype=torch.bfloat16, enabled=machine.bf16):
                answers = module(_laid_out(images, machine))
            loss = loss_of(_in_float(answers), wanted, recipe)
            torch.autograd.backward(loss)
            norm = nn.utils.get_total_norm([weight.grad for weight in parameters if weight.grad is not None])
            if math.isfinite(max_norm):
                nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            after_step(module)
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
    return _Fitted(module=trained, losses=torch.stack(losses).cpu(), state=state)


def _in_float(answers: Any) -> Any:
    """Return a module's answers, one tensor or several, in float32: losses are computed in full precision."""
    return tuple(each.float() for each in answers) if isinstance(answers, tuple) else answers.float()


def _on_device(module: nn.Module, machine: Machine) -> nn.Module:
    """Return a copy of the module on the machine's device and in its memory layout."""
    layout = torch.channels_last if machine.channels_last else torch.contiguous_format
    # torch's stubs know `memory_format` only without other arguments.
    return copy.deepcopy(module).to(  # type: ignore[call-overload, no-any-return]
        device=machine.device, memory_format=layout
    )


def _laid_out(images: Tensor, machine: Machine) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last if machine.channels_last else torch.contiguous_format)


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
        raise _NonFiniteError(message)
