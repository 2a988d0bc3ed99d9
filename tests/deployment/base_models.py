"""The base networks as ONNX files, by the package's own pipeline, with weights that were never trained."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.prune import prune
from scalesearch.networks import base_spec, scale
from scalesearch.tasks.classification.pieces import build, to_onnx
from scalesearch.values.candidate import Pruning, Scaling
from scalesearch.values.network import OnnxModel

RESOLUTION_PX = 64
CLASSES = 10


def base_images(resolution_px: int = RESOLUTION_PX, *, width_px: int = 0) -> "np.typing.NDArray[np.float32]":
    """Noise of many colours and strengths: answers of a random network must differ from image to image.

    The images are squares unless they have a width of their own.
    """
    random = np.random.default_rng(0)
    strength, colour = random.uniform(0.3, 3, (16, 1, 1, 1)), random.normal(0, 2, (16, 3, 1, 1))
    noise = random.normal(size=(16, 3, resolution_px, width_px or resolution_px))
    return (strength * noise + colour).astype(np.float32)


def base_model(
    base: str, folder: Path, scaling: Scaling | None = None, *, pruned: float = 0.0, channel_multiple: int = 16
) -> OnnxModel:
    """The folded fp32 file of a base network, as `<base>.onnx` in the folder."""
    torch.set_num_threads(1)
    spec = scale(
        base_spec(base),
        scaling or Scaling(),
        resolution_px=RESOLUTION_PX,
        num_classes=CLASSES,
        channel_multiple=channel_multiple,
    )
    network = build(spec, seed=0)
    _wake(network.module)
    network.module.eval()
    network = prune(network, Pruning(channel_fraction=pruned), channel_multiple=channel_multiple)
    images = base_images(spec.resolution_px)
    return to_onnx(fold_batchnorm(network), to=folder / f"{base}.onnx", check_images=images[:4])


def _wake(module: nn.Module) -> None:
    """BatchNorms with the statistics of real activations, so that signals neither die nor explode on their way."""
    images = torch.from_numpy(base_images())
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches seen
        with torch.no_grad():
            # Some blocks start at zero, as identities: such a branch would carry nothing to quantize.
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        module.train()(images)
