"""The building blocks of networks: four kinds of residual block, each made from a small description of its shape.

In shapes, B is the batch, C the channels, H and W the sides of the feature map. Every convolution pads by kernel // 2
on both sides or as TensorFlow's SAME, so a stride of s turns a side of H into ceil(H / s), whatever the kernel.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor, nn
from torch.nn import functional

from scalesearch.values.network_spec import Activation, BlockKind, NetworkSpec, Padding

ACTIVATIONS: Mapping[Activation, Callable[[], nn.Module]] = MappingProxyType(
    {
        # In place: nothing reads the old values, and brief training on a CPU is limited by memory traffic.
        "relu": lambda: nn.ReLU(inplace=True),
        "relu6": lambda: nn.ReLU6(inplace=True),
        "silu": lambda: nn.SiLU(inplace=True),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShape:
    """The shape of one block; `expansion` is as in `StageSpec`."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    expansion: int
    activation: Activation
    norm_eps: float
    padding: Padding = "symmetric"


class SamePad(nn.Module):
    """Pads as TensorFlow's SAME does for the convolution after it, whose kernel is larger than its stride.

    The output side is ceil(H / stride) as with symmetric padding, but where the total is odd (strides of 2 on even
    sides) the smaller half comes first: (0, 1) pixels for a kernel of 3, (1, 2) for one of 5.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Pad with zeros: (B, C, H, W) to (B, C, H + total, W + total)."""
        height, width = self._total(x.shape[2]), self._total(x.shape[3])
        return functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))

    def _total(self, side: int) -> int:
        return (side - 1) // self.stride * self.stride + self.kernel - side


def neck_convs(channels: int, spec: NetworkSpec) -> nn.Sequential:
    """Make the convolutions in a row of a neck, head or decoder: (B, channels, H, W) to the same shape."""
    layers: list[nn.Module] = []
    for _ in range(spec.neck_depth):
        layers += conv_norm(
            channels, channels, kernel=spec.neck_kernel, activation=spec.activation, norm_eps=spec.norm_eps
        )
    return nn.Sequential(*layers)


def conv_norm(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int,
    norm_eps: float,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = None,
    padding: Padding = "symmetric",
) -> nn.Sequential:
    """Make a convolution without bias, a BatchNorm and, if named, an activation: (B, C, H, W) to (B, out, H/s, W/s).

    A strided convolution with SAME padding has a layer before it that pads. At stride 1 both kinds are the same.
    """
    same = padding == "same" and kernel > stride > 1
    pad = 0 if same else kernel // 2
    layers: list[nn.Module] = [
        *([SamePad(kernel, stride)] if same else []),
        nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=pad, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=norm_eps),
    ]
    if activation is not None:
        layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


class ResidualBlock(nn.Module):
    """ResNet's block (arXiv 1512.03385, figure 5): activation(body(x) + shortcut(x)).

    The shortcut is the identity if the block keeps the shape, else a strided 1x1 projection (option B of the paper).
    """

    def __init__(self, body: nn.Sequential, shape: BlockShape) -> None:
        super().__init__()
        self.body = body
        keeps_shape = shape.stride == 1 and shape.in_channels == shape.out_channels
        self.shortcut: nn.Module = (
            nn.Identity()
            if keeps_shape
            else conv_norm(
                shape.in_channels, shape.out_channels, kernel=1, stride=shape.stride, norm_eps=shape.norm_eps
            )
        )
        self.activation = ACTIVATIONS[shape.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Run the block: (B, in, H, W) to (B, out, H/stride, W/stride)."""
        out: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return out


class InvertedResidual(nn.Module):
    """MobileNetV2's block (arXiv 1801.04381, figure 3): body(x), plus x if it keeps the shape; no final activation."""

    def __init__(self, body: nn.Sequential, shape: BlockShape) -> None:
        super().__init__()
        self.body = body
        self.adds_input = shape.stride == 1 and shape.in_channels == shape.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Run the block: (B, in, H, W) to (B, out, H/stride, W/stride)."""
        out: Tensor = self.body(x)
        return x + out if self.adds_input else out


class SqueezeExcitation(nn.Module):
    """Weights each channel by a factor computed from the whole image (arXiv 1709.01507, equations 2 to 4)."""

    def __init__(self, channels: int, *, squeeze_channels: int, activation: Activation) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, squeeze_channels, 1)
        self.activation = ACTIVATIONS[activation]()
        self.excite = nn.Conv2d(squeeze_channels, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Weight the channels: (B, C, H, W) to the same shape."""
        weights: Tensor = self.gate(self.excite(self.activation(self.squeeze(self.pool(x)))))
        return x * weights


def basic(shape: BlockShape) -> nn.Module:
    """Make a block of two k x k convolutions, the first one strided."""
    first = conv_norm(
        shape.in_channels,
        shape.out_channels,
        kernel=shape.kernel,
        stride=shape.stride,
        activation=shape.activation,
        norm_eps=shape.norm_eps,
        padding=shape.padding,
    )
    second = conv_norm(shape.out_channels, shape.out_channels, kernel=shape.kernel, norm_eps=shape.norm_eps)
    return ResidualBlock(nn.Sequential(first, second), shape)


def bottleneck(shape: BlockShape) -> nn.Module:
    """Make a block of a 1x1 convolution down to out / expansion channels, a strided k x k one, and a 1x1 one up.

    The stride is in the k x k layer, as in torchvision.
    """
    hidden = shape.out_channels // shape.expansion
    down = conv_norm(shape.in_channels, hidden, kernel=1, activation=shape.activation, norm_eps=shape.norm_eps)
    spatial = conv_norm(
        hidden,
        hidden,
        kernel=shape.kernel,
        stride=shape.stride,
        activation=shape.activation,
        norm_eps=shape.norm_eps,
        padding=shape.padding,
    )
    up = conv_norm(hidden, shape.out_channels, kernel=1, norm_eps=shape.norm_eps)
    return ResidualBlock(nn.Sequential(down, spatial, up), shape)


def inverted_residual(shape: BlockShape) -> nn.Module:
    """Make a block of a 1x1 convolution up to in * expansion channels, a depthwise k x k one and a linear 1x1 one down.

    The first convolution is left out at expansion 1.
    """
    return _inverted(shape, squeeze_excitation=False)


def mbconv(shape: BlockShape) -> nn.Module:
    """Make an inverted residual with squeeze-and-excitation before its last layer (EfficientNet, arXiv 1905.11946)."""
    return _inverted(shape, squeeze_excitation=True)


BLOCKS: Mapping[BlockKind, Callable[[BlockShape], nn.Module]] = MappingProxyType(
    {"basic": basic, "bottleneck": bottleneck, "inverted_residual": inverted_residual, "mbconv": mbconv}
)


def _inverted(shape: BlockShape, *, squeeze_excitation: bool) -> nn.Module:
    hidden = shape.in_channels * shape.expansion
    layers: list[nn.Module] = []
    if shape.expansion != 1:
        layers.append(
            conv_norm(shape.in_channels, hidden, kernel=1, activation=shape.activation, norm_eps=shape.norm_eps)
        )
    layers.append(
        conv_norm(
            hidden,
            hidden,
            kernel=shape.kernel,
            stride=shape.stride,
            groups=hidden,
            activation=shape.activation,
            norm_eps=shape.norm_eps,
            padding=shape.padding,
        )
    )
    if squeeze_excitation:
        # A quarter of the block's input, not of the hidden layer: EfficientNet's se_ratio 0.25.
        squeeze = max(1, shape.in_channels // 4)
        layers.append(SqueezeExcitation(hidden, squeeze_channels=squeeze, activation=shape.activation))
    layers.append(conv_norm(hidden, shape.out_channels, kernel=1, norm_eps=shape.norm_eps))
    return InvertedResidual(nn.Sequential(*layers), shape)
