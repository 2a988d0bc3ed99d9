"""Images a second of our training against a plain loop and against the device's own matrix rate."""

import statistics
import time
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpu_steps import Day
from scalesearch.measurement.cost import formula_cost
from scalesearch.networks import base_spec
from scalesearch.networks.scaling import scale
from scalesearch.tasks.classification.pieces import build, train
from scalesearch.training.machine import probe_machine
from scalesearch.values.candidate import OptimizerName, Recipe, Scaling
from scalesearch.values.network import Network
from scalesearch.values.settings import Machine, MachineSettings

_CLASSES: Final = 100
_MEAN, _STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
_CASES: Final = (  # the goal's case first
    ("resnet50", 224),
    ("resnet_small", 64),
    ("resnet18", 64),
    ("resnet18", 224),
    ("resnet50", 64),
    ("resnet_small", 224),
)
_CPU_CASES: Final = (("resnet_small", 32), ("resnet_small", 64))
_OPTIMIZERS: Final[tuple[OptimizerName, ...]] = ("adamw", "muon")
_FORWARD_AND_BACKWARD: Final = 3
"""Backward costs twice forward: gradients of inputs and of weights."""
_ROUNDS: Final = 3


def run(day: Day) -> None:
    """Put down the matrix rate, then each case: plain loop, ours, and ours as a share of the matrix rate."""
    machine = probe_machine(MachineSettings(device="cuda" if day.device == "cuda" else "cpu"))
    kind = torch.bfloat16 if machine.bf16 else torch.float32
    rate = _matrix_rate(day.device, kind, side=8192 if day.device == "cuda" else 1024)
    day.put(f"{kind} matrix product, TFLOP/s", rate / 1e12, "random data; the ceiling that shares below are of")
    batch, count, steps = (256, 4096, 30) if day.device == "cuda" else (32, 128, 3)
    cases = _CPU_CASES if day.device == "cpu" else _CASES[:3] if day.quick else _CASES
    for name, side_px in cases:
        spec = scale(base_spec(name), Scaling(), resolution_px=side_px, num_classes=_CLASSES)
        network = build(spec)
        noise = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (count, 3, side_px, side_px), dtype=torch.uint8, generator=noise)
        labels = torch.randint(0, _CLASSES, (count,), generator=noise)
        flops = 2 * _FORWARD_AND_BACKWARD * formula_cost(network).macs
        contestants: dict[str, Callable[[int], None]] = {
            "plain loop, AdamW": _plain_loop(network, images, labels, machine, batch),
            **{f"ours, {each}": _ours(network, images, labels, machine, batch, each) for each in _OPTIMIZERS},
        }
        rates = {what: _images_per_s(contestant, batch, steps) for what, contestant in contestants.items()}
        plain = rates["plain loop, AdamW"]
        for what, value in rates.items():
            note = f"{value / plain:.2f} of the plain loop, {100 * flops * value / rate:.1f} % of the matrix rate"
            day.put(f"{name} {side_px} px, batch {batch}, {what}, images/s", value, note)
        del images, contestants
        if day.device == "cuda":
            day.put(f"{name} {side_px} px, peak GPU memory, GiB", torch.cuda.max_memory_allocated() / 2**30)
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.empty_cache()


def _matrix_rate(device: str, kind: torch.dtype, *, side: int) -> float:
    """Floating-point operations a second of a product of two square matrices (side, side)."""
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    for _ in range(3):
        left @ right
    _wait(device)
    started_s = time.perf_counter()
    for _ in range(10):
        left @ right
    _wait(device)
    return 10 * 2 * side**3 / (time.perf_counter() - started_s)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _images_per_s(work: Callable[[int], None], batch: int, steps: int) -> float:
    """Median of rounds; a long round less a short one, so that what happens once a training is left out."""
    work(2)
    found = []
    for _ in range(_ROUNDS):
        seconds = []
        for count in (steps, 2 * steps):
            started_s = time.perf_counter()
            work(count)
            seconds.append(time.perf_counter() - started_s)
        found.append(batch * steps / (seconds[1] - seconds[0]))
    return statistics.median(found)


def _ours(
    network: Network, images: Tensor, labels: Tensor, machine: Machine, batch: int, optimizer: OptimizerName
) -> Callable[[int], None]:
    recipe = Recipe(optimizer=optimizer, learning_rate=0.002, batch_size=batch)

    def work(steps: int) -> None:
        train(network, images, labels, recipe, machine, mean=_MEAN, std=_STD, seed=0, steps=steps)

    return work


def _plain_loop(
    network: Network, images: Tensor, labels: Tensor, machine: Machine, batch: int
) -> Callable[[int], None]:
    """A careful user's loop: data on the device, channels-last, bf16 autocast, fused AdamW, no augmentation."""
    device = machine.device

    def work(steps: int) -> None:
        module = build(network.spec).module.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        on_device, answers = images.to(device), labels.to(device)
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.002, fused=device == "cuda")
        for _ in range(steps):
            chosen = torch.randint(0, len(on_device), (batch,), device=device)
            _plain_step(module, on_device[chosen], answers[chosen], optimizer, machine)
        _wait(device)

    return work


def _plain_step(
    module: nn.Module, pixels: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer, machine: Machine
) -> None:
    inputs = pixels.float().sub_(127.5).div_(63.75).contiguous(memory_format=torch.channels_last)
    with torch.autocast(machine.device, dtype=torch.bfloat16, enabled=machine.bf16):
        logits = module(inputs)
    optimizer.zero_grad()
    torch.autograd.backward(functional.cross_entropy(logits.float(), labels, label_smoothing=0.1))
    optimizer.step()
