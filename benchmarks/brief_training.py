"""Base networks after brief training, for benchmarks of what is done with them; the weights are kept between runs."""

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scalesearch.data import Dataset, ImageSplit
from scalesearch.networks import base_spec, scale
from scalesearch.tasks.classification.pieces import build, score, train
from scalesearch.training.weights import KeptTraining, WeightStore, weights_key
from scalesearch.values.candidate import Recipe, Scaling
from scalesearch.values.network import Network
from scalesearch.values.settings import Machine

MACHINE = Machine(device="cpu", threads=1, bf16=False, channels_last=True)


def trained(
    name: str, data: Dataset, steps: int, folder: Path, *, scaling: Scaling | None = None, channel_multiple: int = 8
) -> Network:
    """The scaled base network in eval mode after brief training, by the weights in `folder` where they are there."""
    recipe = Recipe(steps=steps)
    spec = scale(
        base_spec(name),
        scaling or Scaling(),
        resolution_px=data.resolution_px,
        num_classes=len(data.class_names),
        channel_multiple=channel_multiple,
    )
    key, store = weights_key(spec, recipe, data.fingerprint, 0), WeightStore(folder)
    network = build(spec, dropout=recipe.dropout)
    module = copy.deepcopy(network.module).eval()
    if store.load(key, module) is not None:
        return Network(spec=spec, module=module)
    done = train(network, *tensors(data.train), recipe, MACHINE, mean=data.mean, std=data.std, seed=0)
    kept = KeptTraining(
        float_score=score(done.network, *tensors(data.val), MACHINE, mean=data.mean, std=data.std),
        train_s=done.seconds,
        final_loss=done.final_loss,
        losses=done.losses,
        steps=done.steps,
        safe_recipe_used=done.safe_recipe_used,
    )
    store.save(key, done.network.module, kept)
    return done.network


def tensors(split: ImageSplit) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) and labels."""
    return torch.from_numpy(split.images[:]).permute(0, 3, 1, 2), torch.from_numpy(np.asarray(split.targets))
