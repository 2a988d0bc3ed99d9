"""Training: a network, images in memory and a recipe go in, a new trained network comes out."""

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from scalesearch.errors import ConfigError, StageFailed
from scalesearch.training.augment import Batches
from scalesearch.training.datasets.dataset import PerChannel, normalise
from scalesearch.training.losses import LOSSES
from scalesearch.training.machine import torch_threads
from scalesearch.training.optimizers import make_optimizers, rate_factor
from scalesearch.values.candidate import Recipe
from scalesearch.values.network import Network
from scalesearch.values.settings import Machine

_logger = logging.getLogger(__name__)

# Reading a number back from a GPU waits for it; a network that went bad for a few steps is thrown away all the same.
_HEALTH_CHECK_STEPS: Final = 8
_SAFE_GRADIENT_NORM: Final = 1.0
_FINAL_LOSS_FRACTION: Final = 0.1
_CURVE_POINTS: Final = 40
_STAGE: Final = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What training gave: a new network (eval mode, float32, on the CPU) and how it went."""

    network: Network
    final_loss: float
    """Mean training loss of the last tenth of the steps."""
    losses: tuple[float, ...]
    """Mean training loss of equal stretches of the steps, in order."""
    seconds: float
    steps: int
    safe_recipe_used: bool


class _NonFiniteError(Exception):
    """Loss, gradient or weights became infinite or NaN."""


def train(
    network: Network,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    machine: Machine,
    *,
    mean: PerChannel,
    std: PerChannel,
    seed: int,
    steps: int | None = None,
    breathe: Callable[[], None] = lambda: None,
    after_step: Callable[[nn.Module], None] = lambda _: None,
) -> Trained:
    """A trained copy of the network after exactly `steps` updates; the one given stays as it is.

    Equal seed, machine and inputs give bit-equal weights on a CPU (thread count included: it changes the order of
    sums). If loss, gradients or weights stop being finite, training starts over once with the safe recipe: AdamW at a
    third of its usual rate, clipped gradients, float32.

    Args:
        network: Where to start from: its weights are the initial ones.
        images: uint8 (N, C, H, W), at the resolution of the network's spec.
        labels: Class numbers (N,).
        recipe: How to train.
        machine: Device, threads and precision, from `probe_machine`.
        mean: Per channel, of pixels in 0..1.
        std: Per channel, of pixels in 0..1.
        seed: Of the order of images, augmentation and dropout.
        steps: Updates, in place of `recipe.steps` (the retrain after pruning).
        breathe: Called once before every step; whatever must not run beside training may hold it up there.
        after_step: Called with the module under training after every update, before averages see it: it may change
            weights in place (masks that keep them zero).

    Raises:
        ConfigError: There is nothing to train on, or no step to take.
        StageFailed: The images do not fit the spec, memory ran out, or the safe recipe diverged too.
    """
    recipe = replace(recipe, steps=recipe.steps if steps is None else steps)
    _check_inputs(network, images, labels, recipe)
    started = time.perf_counter()

    def attempt(chosen: Recipe, on: Machine, max_norm: float) -> tuple[nn.Module, Tensor]:
        batches = Batches(images, labels, chosen, mean=mean, std=std, device=on.device, seed=seed)
        return _fit(
            network.module, batches, chosen, on, seed=seed, max_norm=max_norm, breathe=breathe, after_step=after_step
        )

    with torch_threads(machine):
        try:
            module, losses, safe_recipe_used = _with_safe_retry(attempt, recipe, machine)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            reason = f"out of memory at {recipe.batch_size} images of {images.shape[-1]} px: lower training.batch_size"
            raise StageFailed(_STAGE, reason) from error
    return Trained(
        network=replace(network, module=module),
        final_loss=float(losses[-max(1, round(_FINAL_LOSS_FRACTION * recipe.steps)) :].mean()),
        losses=tuple(float(stretch.mean()) for stretch in losses.tensor_split(min(_CURVE_POINTS, recipe.steps))),
        seconds=time.perf_counter() - started,
        steps=recipe.steps,
        safe_recipe_used=safe_recipe_used,
    )


def _with_safe_retry(
    attempt: Callable[[Recipe, Machine, float], tuple[nn.Module, Tensor]], recipe: Recipe, machine: Machine
) -> tuple[nn.Module, Tensor, bool]:
    """Module, loss of each step, and whether the safe recipe was needed."""
    try:
        return *attempt(recipe, machine, math.inf), False
    except _NonFiniteError as first:
        _logger.warning("%s with %s: starting over with the safe recipe", first, recipe.optimizer)
        try:
            return *attempt(_safe(recipe), replace(machine, bf16=False), _SAFE_GRADIENT_NORM), True
        except _NonFiniteError as second:
            reason = f"{first} with {recipe.optimizer}, then {second} with the safe recipe: lower the learning rate"
            raise StageFailed(_STAGE, reason) from second


def _is_out_of_memory(error: RuntimeError) -> bool:
    # torch says it by type on a GPU and by text alone on a CPU.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def score(
    network: Network,
    images: Tensor,
    labels: Tensor,
    machine: Machine,
    mean: PerChannel,
    std: PerChannel,
    batch: int = 256,
) -> float:
    """Top-1 accuracy (0..1) of the torch module in float32 on uint8 images (N, C, H, W) and labels (N,).

    Raises:
        StageFailed: An answer is not finite: its largest class would be the first one, whatever the image.
    """
    module = _on_device(network.module, machine).eval()
    right = broken = 0
    with torch_threads(machine), torch.inference_mode():
        for chunk, answers in zip(torch.split(images, batch), torch.split(labels, batch), strict=True):
            logits = module(_laid_out(normalise(chunk.to(machine.device), mean=mean, std=std), machine))
            right += int((logits.argmax(dim=1) == answers.to(machine.device)).sum())
            broken += int((~logits.isfinite().all(dim=1)).sum())
    if broken:
        reason = f"the trained network answers NaN or infinity for {broken} of {len(labels)} images"
        raise StageFailed(_STAGE, f"{reason}: lower the learning rate")
    return right / len(labels)


def _check_inputs(network: Network, images: Tensor, labels: Tensor, recipe: Recipe) -> None:
    if recipe.steps < 1:
        msg = f"training needs at least 1 step, got {recipe.steps}: raise training.steps or training.retrain_steps"
        raise ConfigError(msg)
    if not len(images) or len(images) != len(labels):
        msg = f"training needs images with one label each, got {len(images)} images and {len(labels)} labels"
        raise ConfigError(msg)
    side = network.spec.resolution_px
    if tuple(images.shape[2:]) != (side, side):
        reason = f"the network expects images of {side} x {side} px, got {tuple(images.shape[2:])}"
        raise StageFailed(_STAGE, reason)


def _safe(recipe: Recipe) -> Recipe:
    # SGD's rates are far above what AdamW bears.
    usual = min(recipe.learning_rate, Recipe().learning_rate)
    return replace(recipe, optimizer="adamw", learning_rate=usual / 3)


def _fit(
    module: nn.Module,
    batches: Batches,
    recipe: Recipe,
    machine: Machine,
    *,
    seed: int,
    max_norm: float,
    breathe: Callable[[], None],
    after_step: Callable[[nn.Module], None],
) -> tuple[nn.Module, Tensor]:
    """The trained copy on the CPU in eval mode, and the loss of each step."""
    module = _on_device(module, machine).train()
    _set_dropout(module, recipe.dropout)
    average = _average(module, recipe.ema_decay) if recipe.ema_decay > 0 else None
    parameters = [weight for weight in module.parameters() if weight.requires_grad]
    optimizers = make_optimizers(module, recipe)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    loss_of = LOSSES[recipe.loss]
    losses: list[Tensor] = []
    health = torch.zeros((), device=machine.device)
    # Dropout draws from the global generators: seed them here and give them back as they were.
    with torch.random.fork_rng(devices=[machine.device] if machine.device != "cpu" else []):
        torch.manual_seed(seed)
        for step in range(recipe.steps):
            breathe()
            _set_rates(optimizers, peaks, rate_factor(step, steps=recipe.steps, warmup_fraction=recipe.warmup_fraction))
            images, labels = batches.next()
            with torch.autocast(torch.device(machine.device).type, dtype=torch.bfloat16, enabled=machine.bf16):
                logits = module(_laid_out(images, machine))
            loss = loss_of(logits.float(), labels, recipe.label_smoothing)
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
            health = health + 0 * (losses[-1] + norm)  # one infinity or NaN makes it NaN for good
            if step % _HEALTH_CHECK_STEPS == 0 or step == recipe.steps - 1:
                _check_finite(health, f"loss or gradient not finite by step {step + 1} of {recipe.steps}")
    trained = (module if average is None else average.module).cpu().to(memory_format=torch.contiguous_format).eval()
    for tensor in trained.state_dict().values():
        _check_finite(tensor, "weights not finite at the end")
    return trained, torch.stack(losses).cpu()


def _on_device(module: nn.Module, machine: Machine) -> nn.Module:
    """A copy of the module where and how it computes."""
    layout = torch.channels_last if machine.channels_last else torch.contiguous_format
    return copy.deepcopy(module).to(device=machine.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]  # torch's stubs know `memory_format` only alone


def _laid_out(images: Tensor, machine: Machine) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last if machine.channels_last else torch.contiguous_format)


def _set_dropout(module: nn.Module, dropout: float) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = dropout


def _average(module: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of weights and BatchNorm statistics, with the decay ramped up over the first steps.

    Without the ramp, (1 + n) / (10 + n) as in TensorFlow's averages, a brief training would mostly average its start.
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
