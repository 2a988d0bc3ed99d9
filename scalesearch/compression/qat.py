"""Quantization-aware training: fine-tune a trained, folded network with simulated 8-bit rounding before its export."""

import copy
import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scalesearch.compression.simulation import STAGE, Simulation, layer_weights
from scalesearch.compression.sparsity import apply_masks
from scalesearch.errors import StageFailed
from scalesearch.memory_layouts import laid_out, layout_of, moved
from scalesearch.strided_convolutions import sound_convolutions
from scalesearch.values.candidate import CALIBRATED, Quantization
from scalesearch.values.network import Network
from scalesearch.values.target import QuantizationProfile

Loss = Callable[[Any, Any], Tensor]
WEIGHT_RATE: Final = 2e-3
"""Learning rate for the weights of classifiers, between two rates that were tried once each. Where rounding cost 50
points, 3e-3 recovered 1 to 2 points more than 1e-3; where it cost 2 points, up to 1 less, within the noise of one seed.
"""
_SCALE_RATE: Final = 1e-2
"""Learning rate of the natural logarithms of the scales. With one network and one seed, the rates 0, 1e-2 and 3e-2 gave
59.0, 58.2 and 58.2 %: there is no proof that learning the scales helps.
"""
_DISTILLATION: Final = 1.0
"""Weight of the divergence when it is added to the loss. With one network and one seed, the weights 0, 1 and 4 gave
57.5, 58.2 and 57.4 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QatResult:
    """The fine-tuned network, in float and without simulated rounding, and the ranges that it has learnt."""

    network: Network
    ranges: Mapping[str, tuple[float, float]]
    """For `quantize(input_ranges=...)`: (low, high) of activations by the keys of `qdq.given_ranges`."""
    weights: Mapping[str, NDArray[np.float32]]
    """The network's weights by the keys of `ranges`, for `qdq.given_ranges`."""
    final_loss: float
    """Mean training loss of the last tenth of the steps."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lessons:
    """Batches, losses, learning rate and kept zeros of the updates."""

    batches: Callable[[], tuple[Tensor, Any]]
    """Returns the next training batch: normalised float images (B, C, H, W) and their targets, on the device that
    trains."""
    loss: Loss
    """The task's loss: takes what the module returns and the targets."""
    divergence: Loss
    """The task's divergence: takes what the module returns and what the float network returns."""
    rate: float = WEIGHT_RATE
    """Peak learning rate of AdamW for the weights."""
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    """By weight name, each of the shape of its weight, False where a weight is zero and stays zero."""
    breathe: Callable[[], None] = lambda: None
    """Called once before every step."""


def quantization_aware(
    network: Network,
    quantization: Quantization,
    lessons: Lessons,
    *,
    profile: QuantizationProfile,
    calibration: Tensor,
    seed: int,
    skip: Set[str] = frozenset(),
) -> QatResult:
    """Train a copy of the network for `qat_steps` updates, with rounding simulated where `quantize` puts Q/DQ nodes.

    Inputs and weights of convolutions and linear layers, and one side of residual sums, are rounded in the forward pass
    and pass the gradient straight through (Bengio et al., arXiv 1308.3432; Jacob et al., arXiv 1712.05877, section 3).
    The scales of weights are computed anew at each step, as `insert_qdq` does it. The scales of activations start from
    calibration and are learnt, with the gradient of Esser et al., "Learned Step Size Quantization", ICLR 2020, equation
    3, on the logarithm of the scale as in Jain et al., arXiv 1903.08066, section 4. The loss is the task's loss plus
    the divergence from the float network's answers. Dropout is off.

    Args:
        network: Trained, its BatchNorms folded, in eval mode; it is not changed.
        quantization: int8 or fp8, `qat_steps`, scales of the weights, and how activations are calibrated at first.
        lessons: Batches, loss, divergence, and the zeros to keep.
        profile: The target's style of quantization: with int8, ONNX Runtime's CPU kernels have uint8 activations and
            weights of 7 bits.
        calibration: Normalised images (N, C, H, W) like those of the batches but not augmented, on the same device;
            the first `calibration_images` of them are used.
        seed: Seed of layers that draw random numbers; the batches have their own.
        skip: Names of the weights of layers that stay in float (`Kept.weights`); they are trained without rounding.

    Returns:
        The trained network on the CPU, the ranges that it has learnt, and its final loss.

    Raises:
        StageFailed: A precision without calibration, no step to take, a network that cannot be traced or that runs a
            layer twice, or training that diverged.
    """
    if quantization.precision not in CALIBRATED or quantization.qat_steps < 1:
        reason = f"needs int8 or fp8 and at least 1 step, got {quantization.precision}, {quantization.qat_steps} steps"
        raise StageFailed(STAGE, reason)
    module = _moved(network.module, calibration.device)
    simulated = Simulation(module, quantization, profile, skip=skip)
    simulated.module.to(calibration.device)
    simulated.calibrate(calibration[: quantization.calibration_images], quantization)
    teacher = _moved(network.module, calibration.device)
    with torch.random.fork_rng(), sound_convolutions(module):
        torch.manual_seed(seed)
        final_loss = _fit(module, simulated, teacher, lessons, quantization.qat_steps)
    trained = module.cpu().to(memory_format=torch.contiguous_format)
    for name, tensor in trained.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise StageFailed(STAGE, f"{name} is not finite after {quantization.qat_steps} steps")
    return QatResult(
        network=replace(network, module=trained),
        ranges=simulated.ranges(),
        weights=layer_weights(trained),
        final_loss=final_loss,
    )


def _moved(module: nn.Module, device: torch.device) -> nn.Module:
    """Return a copy in eval mode on the device, in channels-last layout if it can: that is faster on CPUs too."""
    return moved(copy.deepcopy(module).eval(), layout_of(module), device=device)


def _fit(module: nn.Module, simulated: Simulation, teacher: nn.Module, lessons: Lessons, steps: int) -> float:
    """Train the module, whose rounding is simulated, in place; return the mean loss of the last tenth of the steps."""
    scales = simulated.scales
    known = {id(scale) for scale in scales}
    weights = [weight for weight in simulated.module.parameters() if id(weight) not in known]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "lr": lessons.rate}, {"params": scales, "lr": _SCALE_RATE}], weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate_factor(step, steps))
    losses = []
    for _ in range(steps):
        lessons.breathe()
        images, targets = lessons.batches()
        images = laid_out(images, module)
        with torch.no_grad():
            wanted = teacher(images)
        answers = simulated.module(images)
        loss = lessons.loss(answers, targets) + _DISTILLATION * lessons.divergence(answers, wanted)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        apply_masks(module, lessons.masks)
        schedule.step()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise StageFailed(STAGE, f"loss not finite at step {len(losses)} of {steps}")
    tail = losses[-max(1, steps // 10) :]
    return sum(tail) / len(tail)


def _rate_factor(step: int, steps: int) -> float:
    """Return the share of the peak rate: it rises linearly over the first tenth, then falls to 0 along a cosine."""
    warmup = max(1, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
