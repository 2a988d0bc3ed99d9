"""Segmentation networks: a backbone, a light decoder on its feature maps, and a logit for each class and position.

The logits have the size of the finest map that is read, at stride 8 if the backbone has one. The engine does not
enlarge them to the picture's size: the code that uses them does, if it needs that.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from torch import Tensor, nn
from torch.nn.functional import interpolate

from scalesearch.errors import ConfigError
from scalesearch.networks.backbone import Backbone, feature_strides
from scalesearch.networks.blocks import conv_norm, neck_convs
from scalesearch.networks.scaling import round_channels
from scalesearch.values.network_spec import Decoder, NetworkSpec, StageSpec

FINEST_STRIDE: Final = 8
_WIDTH_OF_STEM: Final = 2
"""The decoder is twice as wide as the stem, so that it follows the width multiplier."""


def levels(spec: NetworkSpec) -> tuple[tuple[str, int], ...]:
    """Return name and stride of the feature maps that a decoder reads, finest first: the last of each stride from 8 on.

    If all strides of the backbone are below 8, it is the backbone's last map.
    """
    last_of_stride = {stride: name for name, stride in feature_strides(spec).items()}
    read = {stride: name for stride, name in last_of_stride.items() if stride >= FINEST_STRIDE}
    chosen = read or dict([max(last_of_stride.items())])
    return tuple((name, stride) for stride, name in sorted(chosen.items()))


def require_sides(spec: NetworkSpec) -> None:
    """Raise ConfigError unless the coarsest map that a decoder reads, enlarged, has just the size of the finest.

    Strided convolutions round sides up: 720 px are 90 rows at stride 8, but 23 at stride 32, which become 92. Where the
    coarsest map fits, those between do, too.
    """
    strides = [stride for _, stride in levels(spec)]
    fine, coarse = strides[0], strides[-1]
    if any(-(-side // fine) != -(-side // coarse) * (coarse // fine) for side in spec.input_size.sides):
        message = (
            f"network {spec.name!r}: expected sides that are multiples of {coarse} px, the stride of the coarsest "
            f"feature map, came {spec.input_size}.\nLeave resolution_multiple out, or set it to {coarse}."
        )
        raise ConfigError(message)


def decoder_channels(spec: NetworkSpec) -> int:
    """Return the number of channels of the decoder."""
    usual = _WIDTH_OF_STEM * spec.stem.channels
    return usual if spec.neck_width == 1 else round_channels(usual, spec.neck_width)


class TopDown(Backbone):
    """Sums feature maps from coarse to fine: each passes a 1x1 convolution, and the enlarged sum so far is added."""

    output_layers = ("classifier",)

    def __init__(self, spec: NetworkSpec, *, dropout: float = 0.0) -> None:
        super().__init__(spec)
        self._levels, channels = levels(spec), decoder_channels(spec)
        self.laterals = nn.ModuleDict(
            {
                name: conv_norm(_stage(spec, name).channels, channels, kernel=1, norm_eps=spec.norm_eps)
                for name, _ in self._levels
            }
        )
        self.smooth = neck_convs(channels, spec)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(channels, spec.num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes, H / stride, W / stride) for images (batch, image channels, H, W)."""
        maps = self.feature_maps(images)
        (name, stride), *finer = reversed(self._levels)
        summed: Tensor = self.laterals[name](maps[name])
        for name, nearer in finer:
            summed = self.laterals[name](maps[name]) + interpolate(
                summed, scale_factor=float(stride // nearer), mode="nearest"
            )
            stride = nearer
        logits: Tensor = self.classifier(self.dropout(self.smooth(summed)))
        return logits


class GatedPair(Backbone):
    """LR-ASPP (arXiv 1905.02244, figure 10): sums logits of the finest map and of the coarsest, gated by its mean."""

    output_layers = ("fine_classifier", "coarse_classifier")

    def __init__(self, spec: NetworkSpec, *, dropout: float = 0.0) -> None:
        super().__init__(spec)
        read, channels = levels(spec), decoder_channels(spec)
        self._fine, self._coarse = read[0][0], read[-1][0]
        self._factor = float(read[-1][1] // read[0][1])
        deep = _stage(spec, self._coarse).channels
        self.branch = conv_norm(deep, channels, kernel=1, activation=spec.activation, norm_eps=spec.norm_eps)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Sequential(nn.Conv2d(deep, channels, 1, bias=False), nn.Sigmoid())
        self.dropout = nn.Dropout(dropout)
        self.fine_classifier = nn.Conv2d(_stage(spec, self._fine).channels, spec.num_classes, 1)
        self.coarse_classifier = nn.Conv2d(channels, spec.num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes, H / stride, W / stride) for images (batch, image channels, H, W)."""
        maps = self.feature_maps(images)
        coarse = maps[self._coarse]
        gated = self.dropout(self.branch(coarse) * self.gate(self.pool(coarse)))
        if self._factor > 1:
            gated = interpolate(gated, scale_factor=self._factor, mode="bilinear", align_corners=False)
        logits: Tensor = self.fine_classifier(maps[self._fine]) + self.coarse_classifier(gated)
        return logits


DECODERS: Final[Mapping[Decoder, type[TopDown] | type[GatedPair]]] = MappingProxyType(
    {"topdown": TopDown, "lraspp": GatedPair}
)


def _stage(spec: NetworkSpec, name: str) -> StageSpec:
    return spec.stages[int(name.removeprefix("stage")) - 1]
