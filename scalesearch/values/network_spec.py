"""The shape a candidate became, in whole numbers, after all rounding."""

from dataclasses import dataclass
from typing import Literal

BlockKind = Literal["basic", "bottleneck", "inverted_residual", "mbconv"]
Activation = Literal["relu", "relu6", "silu"]
HeadWidthRule = Literal["scaled", "at_least_base"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StemSpec:
    """First convolution (+ BatchNorm + activation), and the 3x3 max pooling behind it where `pool` is true."""

    channels: int
    kernel: int
    stride: int
    pool: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """`depth` equal blocks; the first one strides and changes the channels.

    `channels` is what the stage gives out. `expansion` is the ratio hidden / input channels in inverted_residual and
    mbconv, output / hidden in bottleneck, and 1 in basic.
    """

    block: BlockKind
    depth: int
    channels: int
    kernel: int
    stride: int
    expansion: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSpec:
    """1x1 convolution before pooling (`channels` 0: none), and how its width follows the width multiplier."""

    channels: int = 0
    width_rule: HeadWidthRule = "scaled"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A whole network as data: stem, stages, head, classifier. Square input of `resolution_px`."""

    name: str
    resolution_px: int
    num_classes: int
    stem: StemSpec
    stages: tuple[StageSpec, ...]
    head: HeadSpec
    activation: Activation = "relu"
    image_channels: int = 3
    norm_eps: float = 1e-5

    @property
    def total_stride(self) -> int:
        """Input side over the side of the last feature map."""
        stride = self.stem.stride * (2 if self.stem.pool else 1)
        for stage in self.stages:
            stride *= stage.stride
        return stride
