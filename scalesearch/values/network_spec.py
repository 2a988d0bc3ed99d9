"""The shape of a candidate's network and of the images it takes, in whole numbers, after all rounding."""

from dataclasses import dataclass
from typing import Literal

from scalesearch.values.identity import new_field

BlockKind = Literal["basic", "bottleneck", "inverted_residual", "mbconv"]
Activation = Literal["relu", "relu6", "silu"]
HeadWidthRule = Literal["scaled", "at_least_base"]
Padding = Literal["symmetric", "same"]
Decoder = Literal["topdown", "lraspp"]

UNKNOWN_STRIDE = 32
"""Total stride assumed for a user's own module, whose stride is not known. Most networks for photos have this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSize:
    """Height and width in pixels."""

    height_px: int
    width_px: int

    @classmethod
    def square(cls, side_px: int) -> "InputSize":
        """Return the size of a square image."""
        return cls(height_px=side_px, width_px=side_px)

    @classmethod
    def of(cls, size: "int | InputSize") -> "InputSize":
        """Return the size itself; a number stands for the side of a square in pixels."""
        return size if isinstance(size, InputSize) else cls.square(size)

    @property
    def is_square(self) -> bool:
        """Whether both sides are equal."""
        return self.height_px == self.width_px

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.height_px * self.width_px

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width, in the order of array shapes."""
        return self.height_px, self.width_px

    @property
    def label(self) -> str:
        """The size as text: `64`, or `720x1280` (height, width). Meant for columns whose header names the unit px."""
        return str(self.height_px) if self.is_square else f"{self.height_px}x{self.width_px}"

    @property
    def cell(self) -> int | str:
        """The size for tables that programs read: a number for squares, as in earlier versions, text for rectangles."""
        return self.height_px if self.is_square else self.label

    def __str__(self) -> str:
        return f"{self.label} px"


@dataclass(frozen=True, slots=True, kw_only=True)
class StemSpec:
    """The first convolution (+ BatchNorm + activation), and the 3x3 max pooling after it where `pool` is true."""

    channels: int
    kernel: int
    stride: int
    pool: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """A stage of `depth` equal blocks. Only the first block has the stride and changes the number of channels.

    `channels` is the number of the stage's output channels. `expansion` is the ratio hidden / input channels in
    inverted_residual and mbconv, output / hidden in bottleneck, and 1 in basic.
    """

    block: BlockKind
    depth: int
    channels: int
    kernel: int
    stride: int
    expansion: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSpec:
    """The 1x1 convolution before pooling (`channels` 0 means none), and how its width follows the width multiplier."""

    channels: int = 0
    width_rule: HeadWidthRule = "scaled"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A whole network as data: its stem, stages and head, or the origin of a user's own module.

    With an `origin` there are no stages, and stem and head are ignored: the network is the module that this function
    returns, with a last layer for `num_classes`.
    """

    name: str
    resolution_px: int
    """Height of the images in pixels."""
    num_classes: int
    """Number of classes of the data; 0 for a task without classes. The task decides how many outputs that gives."""
    stem: StemSpec
    stages: tuple[StageSpec, ...]
    head: HeadSpec
    activation: Activation = "relu"
    image_channels: int = 3
    norm_eps: float = 1e-5
    width_px: int = new_field(0)
    """Width of the images in pixels; 0 means that they are square."""
    origin: str = new_field("")
    """`package.module:function` that returns a torch module with its weights; empty for all other networks."""
    origin_sha256: str = new_field("")
    """SHA-256 over names and bytes of the state dict of that module."""
    mean: tuple[float, ...] = new_field(())
    """Mean of each channel, for pixels in 0..1, that the weights expect, of a module of `origin` or of a parent; empty:
    that of the data set, or what the parent's file is known to need."""
    std: tuple[float, ...] = new_field(())
    """Standard deviation of each channel, as `mean`."""
    padding: Padding = new_field("symmetric")  # noqa: RUF009  (new_field returns a field)
    """How strided convolutions pad: by kernel // 2 on all sides (symmetric), or as TensorFlow's SAME, which on even
    sides pads one pixel less at the top and on the left. Weights trained with one are wrong with the other."""
    decoder: Decoder = new_field("topdown")  # noqa: RUF009
    """How a network that predicts every pixel joins feature maps of several strides: summed from coarse to fine
    (topdown), or the finest map with a gated coarsest one (lraspp). Other networks ignore it."""
    neck_width: float = new_field(1.0)
    """Multiplier of the channels between the backbone and the outputs of a detector or a segmentation network."""
    neck_depth: int = new_field(1)
    """Number of convolutions in a row in these layers, where there is one at multiplier 1."""
    neck_kernel: int = new_field(3)
    """Side of the kernels of these convolutions."""

    @property
    def input_size(self) -> InputSize:
        """Height and width of the images."""
        return InputSize(height_px=self.resolution_px, width_px=self.width_px or self.resolution_px)

    @property
    def total_stride(self) -> int:
        """Side of the input divided by the side of the last feature map."""
        if self.origin:
            return UNKNOWN_STRIDE
        return (self._stem_stride, *self.strides)[-1]

    @property
    def strides(self) -> tuple[int, ...]:
        """Side of the input divided by the side of each stage's feature map, from the first stage on."""
        strides, stride = list[int](), self._stem_stride
        for stage in self.stages:
            stride *= stage.stride
            strides.append(stride)
        return tuple(strides)

    @property
    def _stem_stride(self) -> int:
        return self.stem.stride * (2 if self.stem.pool else 1)
