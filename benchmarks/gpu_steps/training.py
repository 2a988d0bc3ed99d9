"""Train by the code of a search: bit-equal twice, finite, as accurate as on the CPU within the seeds' spread."""

import statistics
import time
from typing import Final

import torch
from torch import Tensor

from gpu_steps import Day
from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset
from scalesearch.networks import base_spec
from scalesearch.networks.scaling import scale
from scalesearch.tasks.classification.pieces import build, score, train
from scalesearch.training.machine import probe_machine
from scalesearch.training.train import Trained
from scalesearch.values.candidate import OptimizerName, Recipe, Scaling
from scalesearch.values.settings import DataSettings, Machine, MachineSettings

_RESOLUTION_PX: Final = 32
_OPTIMIZERS: Final[tuple[OptimizerName, ...]] = ("muon", "adamw")


def run(day: Day) -> None:
    """Put down equality, accuracy by seed on both devices, and seconds."""
    steps, seeds = (40, 2) if day.quick else (240, 3)
    started_s = time.perf_counter()
    data = load_dataset(
        DataSettings(source="signs"), LABEL_SOURCES, storage_px=_RESOLUTION_PX, cache_folder=day.folder / "cache"
    )
    day.put("data, s", time.perf_counter() - started_s, f"signs, {len(data.train)} training images")
    here = probe_machine(MachineSettings(device="cuda" if day.device == "cuda" else "cpu"))
    day.put("machine", f"{here.device}, bf16 {here.bf16}, {here.threads} threads")
    for optimizer in _OPTIMIZERS:
        recipe = Recipe(optimizer=optimizer, steps=steps)
        _put_equality(day, data, recipe, here)
    if day.device == "cuda":
        _put_equality(day, data, Recipe(steps=steps), here, deterministic=True)
    recipe = Recipe(steps=steps)
    cpu = probe_machine(MachineSettings(device="cpu"))
    found = {where: [_accuracy(data, recipe, machine, seed) for seed in range(seeds)] for where, machine in
             (("this device", here), ("CPU", cpu))}  # fmt: skip
    for where, values in found.items():
        day.put(
            f"top-1 on validation, {where}, %", " ".join(f"{100 * value:.1f}" for value in values), f"{steps} updates"
        )
    gap = statistics.fmean(found["this device"]) - statistics.fmean(found["CPU"])
    spread = statistics.pstdev([value - statistics.fmean(each) for each in found.values() for value in each])
    day.put("gap of the means, points", 100 * gap, f"seeds spread by {100 * spread:.2f} (standard deviation)")


def _put_equality(day: Day, data: Dataset, recipe: Recipe, machine: Machine, *, deterministic: bool = False) -> None:
    torch.backends.cudnn.deterministic = deterministic
    first, second = (_trained(data, recipe, machine, seed=0) for _ in range(2))
    torch.backends.cudnn.deterministic = False
    what = f"{recipe.optimizer}{', deterministic cuDNN' if deterministic else ''}"
    pairs = zip(first.network.module.state_dict().values(), second.network.module.state_dict().values(), strict=True)
    apart = max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in first.network.module.state_dict().values())
    day.put(f"bit-equal twice, {what}", apart == 0.0, f"largest difference of a weight {apart:.2g}")
    day.put(f"finite, {what}", finite, f"final loss {first.final_loss:.3f}, safe recipe used: {first.safe_recipe_used}")
    day.put(f"seconds, {what}", first.seconds, f"then {second.seconds:.2f}")


def _accuracy(data: Dataset, recipe: Recipe, machine: Machine, seed: int) -> float:
    trained = _trained(data, recipe, machine, seed)
    return score(trained.network, _planes(data, "val"), _labels(data, "val"), machine, data.mean, data.std)


def _trained(data: Dataset, recipe: Recipe, machine: Machine, seed: int) -> Trained:
    spec = scale(base_spec("resnet_small"), Scaling(), resolution_px=_RESOLUTION_PX, num_classes=len(data.class_names))
    images, labels = _planes(data, "train"), _labels(data, "train")
    return train(build(spec, seed=seed), images, labels, recipe, machine, mean=data.mean, std=data.std, seed=seed)


def _planes(data: Dataset, split: str) -> Tensor:
    images: Tensor = torch.from_numpy(getattr(data, split).images[:]).permute(0, 3, 1, 2)
    return images


def _labels(data: Dataset, split: str) -> Tensor:
    labels: Tensor = getattr(data, split).targets.tensor()
    return labels
