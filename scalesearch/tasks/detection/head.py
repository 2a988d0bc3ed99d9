"""The detector: a backbone, a top-down neck on its feature maps, and a head of its own for each of them."""

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from scalesearch.errors import ConfigError
from scalesearch.networks.backbone import Backbone
from scalesearch.networks.blocks import neck_convs
from scalesearch.networks.scaling import round_channels
from scalesearch.tasks.detection.decoding import STRIDES
from scalesearch.tasks.detection.levels import levels_of, stages_built
from scalesearch.values.network_spec import NetworkSpec, StageSpec

# The neck is a little narrower than the finest feature map that it reads, and so scales with the backbone's width.
_NECK_SHARE = 0.75
_NECK_CHANNELS = (16, 256)
# An untrained detector predicts "nothing here" everywhere: a probability of 0.02 for each class and for an object.
_LOGIT_BIAS = -4.0
_DISTANCE_BIAS = 1.0
_OUTPUT_STD = 0.01


class LevelHead(nn.Module):
    """Convolutions on one feature map, one row for classes and one for boxes, and the 1x1 outputs on them.

    A row is one 3x3 convolution, unless neck and heads follow the depth or the kernel (`NetworkSpec.neck_depth`).
    """

    def __init__(self, spec: NetworkSpec, channels: int, *, dropout: float) -> None:
        super().__init__()
        self.class_tower, self.box_tower = (neck_convs(channels, spec) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.distances = nn.Conv2d(channels, 4, 1)
        self.classes = nn.Conv2d(channels, spec.num_classes, 1)
        self.objectness = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return (batch, 4 + classes + 1, points): raw distances in strides, class logits and the objectness logit."""
        boxes, classes = self.dropout(self.box_tower(features)), self.dropout(self.class_tower(features))
        return torch.cat([self.distances(boxes), self.classes(classes), self.objectness(boxes)], dim=1).flatten(2)


class Detector(Backbone):
    """Finds objects at the points of feature maps with strides of 8, 16 and 32, as far as the backbone has them.

    Coarse maps are enlarged and added to finer ones (arXiv 1612.03144, section 3). Each level has a head of its own:
    the BatchNorm of a shared head could not be folded. Stages after the coarsest map that is read are not built.

    Raises:
        ConfigError: The backbone has none of these strides, or the image's sides are no multiples of the coarsest.
    """

    # On a detector that had learnt 16 scenes to an mAP50-95 of 77, forty updates at 2e-3 left 41, at 5e-4 87.
    rounding_rate = 5e-4

    def __init__(self, spec: NetworkSpec, *, dropout: float = 0.0) -> None:
        levels = levels_of(spec)
        _check(spec, tuple(levels.values()))
        super().__init__(replace(spec, stages=spec.stages[: stages_built(spec)]))
        read = {name: spec.stages[int(name.removeprefix("stage")) - 1] for name in levels}
        channels = neck_channels(next(iter(read.values())), spec.neck_width)
        self.level_names = tuple(levels)
        self.enlargements = tuple(coarse // fine for fine, coarse in pairwise(levels.values()))
        self.laterals = nn.ModuleList(nn.Conv2d(stage.channels, channels, 1) for stage in read.values())
        self.heads = nn.ModuleList(LevelHead(spec, channels, dropout=dropout) for _ in read)
        self.output_layers = tuple(
            f"heads.{number}.{output}"
            for number in range(len(read))
            for output in ("distances", "classes", "objectness")
        )

    def forward(self, images: Tensor) -> Tensor:
        """Find objects: (batch, image channels, H, W) to (batch, 4 + classes + 1, points), as `LevelHead` has it."""
        maps = self.feature_maps(images)
        features = [lateral(maps[name]) for lateral, name in zip(self.laterals, self.level_names, strict=True)]
        for finer in range(len(features) - 2, -1, -1):
            factor = float(self.enlargements[finer])
            larger = functional.interpolate(features[finer + 1], scale_factor=factor, mode="nearest")
            features[finer] = features[finer] + larger
        return torch.cat([head(each) for head, each in zip(self.heads, features, strict=True)], dim=2)

    def start_outputs(self, generator: Generator) -> None:
        """Initialise the output layers near their usual outputs: small weights, and biases for "nothing here"."""
        for head in self.heads:
            assert isinstance(head, LevelHead)
            for layer, bias in (
                (head.distances, _DISTANCE_BIAS), (head.classes, _LOGIT_BIAS), (head.objectness, _LOGIT_BIAS),
            ):  # fmt: skip
                nn.init.normal_(layer.weight, std=_OUTPUT_STD, generator=generator)
                assert layer.bias is not None
                nn.init.constant_(layer.bias, bias)


def neck_channels(finest: StageSpec, multiplier: float = 1.0) -> int:
    """Return the number of channels of neck and heads, always from 16 to 256.

    Args:
        finest: The stage of the backbone whose feature map is the finest that the detector reads.
        multiplier: Width multiplier of neck and heads alone.
    """
    least, most = _NECK_CHANNELS
    return min(max(round_channels(finest.channels, _NECK_SHARE * multiplier), least), most)


def _check(spec: NetworkSpec, strides: tuple[int, ...]) -> None:
    if not strides:
        message = (
            f"network {spec.name!r}: expected stages with a stride of {', '.join(map(str, STRIDES))} for detection, "
            f"came a total stride of {spec.total_stride}.\nTake a network with such stages, e.g. resnet_scene."
        )
        raise ConfigError(message)
    if spec.num_classes < 1:
        message = f"network {spec.name!r}: expected at least one class of objects to find, came none."
        raise ConfigError(message)
    if any(side % strides[-1] for side in spec.input_size.sides):
        message = (
            f"network {spec.name!r}: expected sides that are multiples of {strides[-1]} px, the stride of the coarsest "
            f"feature map, came {spec.input_size}.\nLeave resolution_multiple out, or set it to {strides[-1]}."
        )
        raise ConfigError(message)
