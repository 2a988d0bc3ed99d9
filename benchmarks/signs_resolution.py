"""Prints how brief training on the synthetic signs depends on resolution and width: the table behind their difficulty.

    python benchmarks/signs_resolution.py --seeds 2

The signs are fit for a search if the base network ends between 60 and 97 % at 64 px and loses more than 10 points at
16 px; the last lines say whether that holds.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import torch

from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset
from scalesearch.measurement.cost import formula_cost
from scalesearch.networks import base_spec
from scalesearch.networks.scaling import scale
from scalesearch.tasks.classification.pieces import build, score, train
from scalesearch.training.machine import probe_machine
from scalesearch.values.candidate import Recipe, Scaling
from scalesearch.values.settings import DataSettings, Machine, MachineSettings

SHAPES = ((16, 1.0), (24, 1.0), (32, 1.0), (48, 1.0), (64, 0.5), (64, 1.0), (64, 1.5))


def top1(
    data: Dataset, *, base: str, resolution_px: int, width: float, seed: int, recipe: Recipe, machine: Machine
) -> tuple[float, float, int]:
    """Accuracy on the validation images in percent, seconds of training, and multiply-accumulates."""
    small = data.at(resolution_px)
    spec = scale(base_spec(base), Scaling(width=width), resolution_px=resolution_px, num_classes=len(data.class_names))
    network = build(spec, seed=seed)
    planes = [torch.from_numpy(split.images[:]).permute(0, 3, 1, 2) for split in (small.train, small.val)]
    labels = [split.targets.tensor() for split in (small.train, small.val)]
    trained = train(network, planes[0], labels[0], recipe, machine, mean=data.mean, std=data.std, seed=seed)
    accuracy = score(trained.network, planes[1], labels[1], machine, data.mean, data.std)
    return 100 * accuracy, trained.seconds, formula_cost(network).macs


def main() -> None:
    """Train every shape with every seed and print the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="resnet_small")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    parser.add_argument("--cache-folder", type=Path, default=None)
    given = parser.parse_args()
    data = load_dataset(DataSettings(), LABEL_SOURCES, storage_px=64, cache_folder=given.cache_folder)
    machine = probe_machine(MachineSettings())
    recipe = replace(Recipe(), steps=given.steps)
    print(f"{given.base}, {recipe.steps} steps of {recipe.batch_size}, {recipe.optimizer}")
    print("| px | width | MMACs | top-1 % | spread | train s |\n|---|---|---|---|---|---|")
    means = {}
    for resolution_px, width in SHAPES:
        runs = [
            top1(
                data,
                base=given.base,
                resolution_px=resolution_px,
                width=width,
                seed=seed,
                recipe=recipe,
                machine=machine,
            )
            for seed in range(given.seeds)
        ]
        scores = [run[0] for run in runs]
        means[resolution_px, width] = statistics.mean(scores)
        seconds, macs = statistics.mean(run[1] for run in runs), runs[0][2]
        print(
            f"| {resolution_px} | {width} | {macs / 1e6:.1f} | {means[resolution_px, width]:.1f} "
            f"| {max(scores) - min(scores):.1f} | {seconds:.0f} |",
            flush=True,
        )
    base, gap = means[64, 1.0], means[64, 1.0] - means[16, 1.0]
    print(f"base at 64 px: {base:.1f} % (wanted 60..97: {60 <= base <= 97})")
    print(f"64 px beats 16 px by {gap:.1f} points (wanted > 10: {gap > 10})")


if __name__ == "__main__":
    main()
