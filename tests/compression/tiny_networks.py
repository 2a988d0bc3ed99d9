"""Small networks of every block kind, and one that has really learnt something, for the tests of this folder."""

import functools
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from scalesearch.tasks.classification.pieces import build
from scalesearch.values.network import Network
from scalesearch.values.network_spec import Activation, BlockKind, HeadSpec, NetworkSpec, StageSpec, StemSpec

BLOCK_KINDS: tuple[BlockKind, ...] = get_args(BlockKind)
CLASSES = 6
SIDE_PX = 16

_EXPANSIONS: dict[BlockKind, int] = {"basic": 1, "bottleneck": 2, "inverted_residual": 4, "mbconv": 4}
_ACTIVATIONS: dict[BlockKind, Activation] = {"inverted_residual": "relu6", "mbconv": "silu"}


def tiny_spec(block: BlockKind, *, channels: int = 32, stem: int = 16) -> NetworkSpec:
    """Two blocks at stride 2, so that one has a projection and the other an identity shortcut."""
    stage = StageSpec(block=block, depth=2, channels=channels, kernel=3, stride=2, expansion=_EXPANSIONS[block])
    return NetworkSpec(
        name=f"tiny_{block}",
        resolution_px=SIDE_PX,
        num_classes=CLASSES,
        stem=StemSpec(channels=stem, kernel=3, stride=1),
        stages=(stage,),
        head=HeadSpec(),
        activation=_ACTIVATIONS.get(block, "relu"),
    )


def tiny_network(block: BlockKind, *, channels: int = 32, stem: int = 16) -> Network:
    """Untrained weights, but BatchNorms as after training: every statistic, gain and shift different."""
    network = build(tiny_spec(block, channels=channels, stem=stem), seed=3)
    spread_norms(network.module)
    network.module.eval()
    return network


def spread_norms(module: nn.Module) -> None:
    """Statistics, gains and shifts far from 0 and 1, with which a forgotten term of the formula shows."""
    generator = torch.Generator().manual_seed(7)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            with torch.no_grad():
                layer.running_mean.normal_(0, 0.5, generator=generator)
                layer.running_var.uniform_(0.2, 3.0, generator=generator)
                if layer.affine:
                    layer.weight.uniform_(0.3, 2.0, generator=generator)
                    layer.bias.normal_(0, 0.5, generator=generator)


def gratings(count: int, *, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images (N, 3, 16, 16) of stripes in one of six directions, in noise, and their labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    angle = (labels * np.pi / CLASSES)[:, None, None]
    phase = random.uniform(0, 2 * np.pi, (count, 1, 1))
    stripes = np.sin(0.9 * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    images = stripes[:, None] * random.uniform(0.5, 1.5, (count, 3, 1, 1)) + random.normal(0, 0.7, (count, 3, 16, 16))
    return images.astype(np.float32), labels


@functools.cache
def trained_network(block: BlockKind = "inverted_residual") -> Network:
    """A tiny network after 80 steps on the gratings; about two seconds."""
    torch.set_num_threads(1)
    network = build(tiny_spec(block), seed=1)
    images, labels = (torch.from_numpy(array) for array in gratings(2560, seed=0))
    optimizer = torch.optim.AdamW(network.module.parameters(), lr=0.01)
    for step in range(80):
        part = slice(32 * step, 32 * step + 32)
        loss = cross_entropy(network.module(images[part]), labels[part])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.module.eval()
    return network
