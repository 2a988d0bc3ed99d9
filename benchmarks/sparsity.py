"""What 2:4 zeros cost in accuracy, on a network wide enough that a sparse tensor core could gain by them.

    python benchmarks/sparsity.py --data DIR [--network resnet18] [--resolution 64] [--steps 240] [--retrain 80]

Trains the network briefly from each seed, sets half the weights of the layers that can pay to zero (magnitude, two in
each four input channels), and retrains with the zeros kept; the control is the same retraining without zeros, so that
what further training brings is not credited to either. Accuracy is on the validation images. The file of the last
seed must hold exactly two zeros in each four on every chosen layer, and is built by TensorRT for RTX with
`SPARSE_WEIGHTS` where the extra `rtx` is installed. Nothing here is a speed: that needs the chip.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from brief_training import tensors
from onnx import numpy_helper

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.sparsity import apply_masks, masked, sparsity_masks
from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset, to_input
from scalesearch.deployment.acceptance import Gate
from scalesearch.deployment.backends.tensorrt.library import is_installed
from scalesearch.networks import base_spec, scale
from scalesearch.tasks.classification.pieces import build, score, to_onnx, train
from scalesearch.values.candidate import Pruning, Recipe, Scaling
from scalesearch.values.network import Network
from scalesearch.values.settings import DataSettings, Machine, TensorRtSettings

MACHINE = Machine(device="cpu", threads=1, bf16=False, channels_last=True)
SPARSE = Pruning(sparsity="2:4")


def _train(
    network: Network, data: Dataset, recipe: Recipe, seed: int, steps: int, masks: dict[str, torch.Tensor] | None = None
) -> Network:
    return train(
        network, *tensors(data.train), replace(recipe, steps=steps), MACHINE, mean=data.mean, std=data.std, seed=seed,
        after_step=lambda module: apply_masks(module, masks or {}),
    ).network  # fmt: skip


def _top1(network: Network, data: Dataset) -> float:
    return 100 * score(network, *tensors(data.val), MACHINE, mean=data.mean, std=data.std)


def _zeros_hold(file: Path, layers: int) -> bool:
    """Whether exactly `layers` weights of the file have exactly two zeros in each four input channels."""
    found = 0
    for tensor in onnx.load(file).graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.ndim == 4 and weight.shape[1] % 4 == 0:
            groups = weight.reshape(weight.shape[0], -1, 4, *weight.shape[2:])
            found += bool(((groups == 0).sum(axis=2) == 2).all())
    return found == layers


def main() -> None:
    """Prints a line for each seed, then means and what the compiler says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="signs")
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--retrain", type=int, default=80)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--val-fraction", type=float, default=0.0)
    told = parser.parse_args()
    settings = DataSettings(source=told.data, val_fraction=told.val_fraction)
    data = load_dataset(settings, LABEL_SOURCES, storage_px=told.resolution).at(told.resolution)
    spec = base_spec(told.network)
    scaling = Scaling(resolution=told.resolution / spec.resolution_px)
    spec = scale(spec, scaling, resolution_px=spec.resolution_px, num_classes=len(data.class_names))
    recipe, rows = Recipe(schedule="cosine"), []
    print(f"{told.network} at {told.resolution} px on {data.name}, {told.steps} steps, then {told.retrain}: top-1, %")
    for seed in range(told.seeds):
        trained = _train(build(spec, dropout=recipe.dropout, seed=seed), data, recipe, seed, told.steps)
        masks = sparsity_masks(trained, SPARSE)
        cut = masked(trained, masks)
        sparse = _train(cut, data, recipe, seed + 100, told.retrain, masks)
        control = _train(trained, data, recipe, seed + 100, told.retrain)
        rows.append([_top1(network, data) for network in (trained, cut, control, sparse)])
        print(f"seed {seed}: trained {rows[-1][0]:.1f}, zeros set {rows[-1][1]:.1f}, ", end="")
        print(f"retrained dense {rows[-1][2]:.1f}, retrained 2:4 {rows[-1][3]:.1f}", flush=True)
    means = np.mean(rows, axis=0)
    print(f"mean of {told.seeds}: {means[0]:.1f}, {means[1]:.1f}, {means[2]:.1f}, {means[3]:.1f}")
    share = sum(mask.numel() for mask in masks.values()) / sum(p.numel() for p in trained.module.parameters())
    print(f"{len(masks)} layers with zeros, {100 * share:.0f} % of the parameters")
    images = to_input(data.val.images[:8], mean=data.mean, std=data.std)
    with tempfile.TemporaryDirectory() as folder:
        model = to_onnx(fold_batchnorm(sparse), to=Path(folder) / "sparse.onnx", check_images=images)
        print(f"the file holds two zeros in each four on exactly those: {_zeros_hold(model.path, len(masks))}")
        if is_installed("tensorrt_rtx"):
            gate = Gate("", TensorRtSettings(sparse_weights=True))
            verdict = gate.judge(model)
            print(
                f"accepted with SPARSE_WEIGHTS by {verdict.compiler}: {verdict.layers} kernels, {verdict.build_s:.1f} s"
            )


if __name__ == "__main__":
    main()
