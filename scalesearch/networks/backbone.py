"""The part of a network that every task shares: stem and stages, from images to feature maps."""

from typing import ClassVar

from torch import Generator, Tensor, nn

from scalesearch.networks.blocks import BLOCKS, BlockShape, conv_norm
from scalesearch.values.network_spec import NetworkSpec, StageSpec


class Backbone(nn.Module):
    """Stem and stages of a spec. Every task's module inherits from it, so weights have the same names in all tasks."""

    output_layers: tuple[str, ...] = ()
    """Names of the layers whose outputs are answers: pruning never removes these outputs."""
    rounding_rate: ClassVar[float | None] = None
    """Learning rate of training with simulated rounding; None takes that of classifiers."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.stem = _stem(spec)
        stages: list[nn.Module] = []
        channels = spec.stem.channels
        for stage in spec.stages:
            stages.append(_stage(spec, stage, in_channels=channels))
            channels = stage.channels
        self.stages = nn.Sequential(*stages)

    def start_outputs(self, generator: Generator) -> None:
        """Set the weights of output layers that are not to begin in the usual way; by default there are none."""

    def feature_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return the output of each stage by `stage1`, `stage2`, ...: (batch, channels, H / stride, W / stride).

        Args:
            images: (batch, C, H, W), normalised. The strides are those of `feature_strides`.
        """
        features, maps = self.stem(images), dict[str, Tensor]()
        for place, stage in enumerate(self.stages, 1):
            features = stage(features)
            maps[f"stage{place}"] = features
        return maps


def feature_strides(spec: NetworkSpec) -> dict[str, int]:
    """Return, by `stage1`, `stage2`, ..., how many image pixels one pixel of that stage's feature map stands for."""
    return {f"stage{place}": stride for place, stride in enumerate(spec.strides, 1)}


def _stem(spec: NetworkSpec) -> nn.Sequential:
    layers = conv_norm(
        spec.image_channels,
        spec.stem.channels,
        kernel=spec.stem.kernel,
        stride=spec.stem.stride,
        activation=spec.activation,
        norm_eps=spec.norm_eps,
        padding=spec.padding,
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
                padding=spec.padding,
            )
        )
        for number in range(stage.depth)
    ]
    return nn.Sequential(*blocks)
