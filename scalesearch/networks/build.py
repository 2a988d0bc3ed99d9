"""A spec becomes a torch module with seeded weights."""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scalesearch.errors import ConfigError, StageFailed
from scalesearch.memory import available_bytes
from scalesearch.networks.blocks import BLOCKS, BlockShape, conv_norm
from scalesearch.networks.validity import check_spec
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec, StageSpec


class ImageClassifier(nn.Module):
    """Stem, stages, head, global average pooling, dropout and a linear classifier: images to logits.

    `classifier` is the only layer whose outputs are classes: pruning leaves it alone, training may treat it apart.
    """

    def __init__(self, spec: NetworkSpec, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = _stem(spec)
        stages: list[nn.Module] = []
        channels = spec.stem.channels
        for stage in spec.stages:
            stages.append(_stage(spec, stage, in_channels=channels))
            channels = stage.channels
        self.stages = nn.Sequential(*stages)
        self.head: nn.Module = nn.Identity()
        if spec.head.channels:
            self.head = conv_norm(
                channels, spec.head.channels, kernel=1, activation=spec.activation, norm_eps=spec.norm_eps
            )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(spec.head.channels or channels, spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, image channels, H, W) to logits of shape (B, classes)."""
        features = self.head(self.stages(self.stem(images)))
        logits: Tensor = self.classifier(self.dropout(self.flatten(self.pool(features))))
        return logits


def build(spec: NetworkSpec, *, dropout: float = 0.0, seed: int = 0) -> Network:
    """The network of a spec on the CPU, in float32 and training mode.

    Equal spec and seed give equal weights; torch's global random state is neither read nor moved.

    Raises:
        ConfigError: The spec cannot be built, or `dropout` is not in [0, 1).
        StageFailed: Its weights would not fit into memory.
    """
    check_spec(spec)
    if not 0.0 <= dropout < 1.0:
        message = f"dropout must be at least 0 and below 1, not {dropout!r}"
        raise ConfigError(message)
    # On the meta device layers draw no random numbers; every tensor is filled by us below.
    with torch.device("meta"):
        module = ImageClassifier(spec, dropout=dropout)
    _require_memory(spec, module)
    module.to_empty(device="cpu")
    _fill(module, torch.Generator().manual_seed(seed))
    return Network(spec=spec, module=module)


def _require_memory(spec: NetworkSpec, module: nn.Module) -> None:
    """Raise StageFailed where the weights alone would take more than half of the memory that is available."""
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    if size_bytes > available_bytes() / 2:
        reason = (
            f"the weights of {spec.name} would take {size_bytes / 1e9:.3g} GB, expected at most half of the "
            f"{available_bytes() / 1e9:.1f} GB of memory available: use smaller multipliers of width, depth or kernel"
        )
        raise StageFailed(stage="build", reason=reason)


def outline(spec: NetworkSpec) -> Network:
    """The network without weights (on torch's meta device): shapes and costs of any size, in milliseconds.

    Raises:
        ConfigError: The spec cannot be built.
    """
    check_spec(spec)
    with torch.device("meta"):
        return Network(spec=spec, module=ImageClassifier(spec))


def settle_norms(network: Network, images: NDArray[np.float32]) -> Network:
    """A copy in eval mode whose BatchNorm statistics are those of these images (N, C, H, W).

    An untrained network with the usual statistics (mean 0, variance 1) answers nearly the same to every image, and what
    is compared or calibrated on it means nothing.
    """
    module = copy.deepcopy(network.module).train()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # a plain mean over the batches, of which there is one
            layer.reset_running_stats()
    with torch.no_grad():
        module(torch.from_numpy(images))
    return Network(spec=network.spec, module=module.eval())


def _stem(spec: NetworkSpec) -> nn.Sequential:
    layers = conv_norm(
        spec.image_channels,
        spec.stem.channels,
        kernel=spec.stem.kernel,
        stride=spec.stem.stride,
        activation=spec.activation,
        norm_eps=spec.norm_eps,
    )
    if spec.stem.pool:
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    return layers


def _stage(spec: NetworkSpec, stage: StageSpec, *, in_channels: int) -> nn.Sequential:
    blocks = [
        BLOCKS[stage.block](
            BlockShape(
                in_channels=stage.channels if number else in_channels,
                out_channels=stage.channels,
                kernel=stage.kernel,
                stride=1 if number else stage.stride,
                expansion=stage.expansion,
                activation=spec.activation,
                norm_eps=spec.norm_eps,
            )
        )
        for number in range(stage.depth)
    ]
    return nn.Sequential(*blocks)


def _fill(module: nn.Module, generator: torch.Generator) -> None:
    """He initialisation (arXiv 1502.01852, equation 14), as torchvision, with one difference for depthwise layers.

    torch counts a depthwise layer's fan-out as if every input reached every output and starts it too small by the
    square root of its groups; EfficientNet's reference code counts k * k, and so do we.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.weight[:, 0].numel() // layer.groups
            nn.init.normal_(layer.weight, std=(2.0 / fan_out) ** 0.5, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()  # ones, zeros and fresh running statistics: no random numbers
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01, generator=generator)
            nn.init.zeros_(layer.bias)
