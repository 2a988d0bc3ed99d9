"""Scale a base spec by multipliers to a spec in whole numbers. All rounding of network shapes is done here."""

import math
from dataclasses import replace

from scalesearch.errors import ConfigError
from scalesearch.networks.validity import check_spec
from scalesearch.values.candidate import Scaling, StageScaling
from scalesearch.values.network_spec import HeadSpec, InputSize, NetworkSpec, StageSpec
from scalesearch.values.space import SearchSpace

# 2 * 1.1 is 2.2000000000000002 and 24 * 0.7 is 16.799999999999997. Products are rounded to this many decimals first, so
# that ceil and the rounding borders depend on the numbers the user wrote and not on how they are stored in binary.
_DECIMALS = 9
_SMALLEST_KERNEL = 3
_MULTIPLIERS = ("resolution", "depth", "width", "kernel", "neck_width")


def scale(
    base: NetworkSpec,
    scaling: Scaling,
    *,
    resolution_px: int | InputSize,
    num_classes: int,
    channel_multiple: int = 8,
    resolution_multiple: int = 0,
) -> NetworkSpec:
    """Scale `base` by the given multipliers, for images of `resolution_px` times the resolution multiplier.

    Depth, width and resolution scale together as in EfficientNet (arXiv 1905.11946, equations 2 and 3); kernels are
    the fourth dimension. A stage's own multiplier is multiplied by the global one before anything is rounded. The stem
    is scaled in width only; its kernel and stride stay. What stands between the backbone and the outputs of a task
    follows the multipliers that `scaling.neck_follows` names, but not those of single stages.

    Args:
        base: The network at multiplier 1.
        scaling: The multipliers. Stages of `base` without an entry in `scaling.stages` (the last ones) have own
            multipliers of 1.
        resolution_px: Image size at resolution multiplier 1: the side of square images in pixels, or an `InputSize`.
        num_classes: Classes of the data; 0 for a task without classes.
        channel_multiple: Channels of stem, stages and head are multiples of this, also at multiplier 1.
        resolution_multiple: Both sides of the images are multiples of this; 0 means the base network's total stride.

    Raises:
        ConfigError: A multiplier is not positive and finite, one of the numbers is too small, `base` cannot be built,
            or it lacks a stage that is scaled.
    """
    check_spec(base)
    if base.origin:
        _refuse_other_shapes(base, scaling)
    size = resolution_px if isinstance(resolution_px, InputSize) else InputSize.square(resolution_px)
    _check(base, scaling, resolution_px=min(size.sides), num_classes=num_classes, channel_multiple=channel_multiple)
    if resolution_multiple < 0:
        message = f"resolution_multiple must be 0 (the network's total stride) or more, not {resolution_multiple}"
        raise ConfigError(message)
    multiple = resolution_multiple or base.total_stride
    height_px, width_px = (round_resolution(side_px, scaling.resolution, multiple=multiple) for side_px in size.sides)
    base = replace(
        base,
        resolution_px=height_px,
        width_px=0 if size.is_square else width_px,
        num_classes=num_classes,
        decoder=scaling.decoder,
        neck_width=scaling.neck_width,
        neck_depth=_neck_depth(scaling),
        neck_kernel=_neck_kernel(scaling),
    )
    if base.origin:
        return base
    # A space names only the stages that it scales on their own, and its candidates end with the last stage named.
    per_stage = (*scaling.stages, *(StageScaling(),) * (len(base.stages) - len(scaling.stages)))
    return replace(
        base,
        stem=replace(base.stem, channels=round_channels(base.stem.channels, scaling.width, multiple=channel_multiple)),
        stages=tuple(
            _scale_stage(stage, scaling, own, channel_multiple)
            for stage, own in zip(base.stages, per_stage, strict=True)
        ),
        head=_scale_head(base.head, scaling.width, channel_multiple),
    )


def round_depth(depth: int, multiplier: float) -> int:
    """Return a stage's number of blocks: ceil(depth * multiplier), as `round_repeats` of EfficientNet's own code."""
    return max(1, math.ceil(round(depth * multiplier, _DECIMALS)))


def round_channels(channels: int, multiplier: float, *, multiple: int = 8) -> int:
    """Return the multiple of `multiple` that is nearest to channels * multiplier, but never below 90 % of that product.

    This is `make_divisible` of the MobileNetV2 code and `round_filters` of EfficientNet's. Ties go up, and so does a
    rounding that would lose more than a tenth (20 * 0.9 = 18 becomes 24, since 16 is below 0.9 * 18 = 16.2).
    """
    wanted = round(channels * multiplier, _DECIMALS)
    rounded = max(multiple, int(wanted + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < round(0.9 * wanted, _DECIMALS) else rounded


def round_kernel(kernel: int, multiplier: float) -> int:
    """Return the odd number that is nearest to kernel * multiplier (ties go up), at least 3; a kernel of 1 stays 1.

    It is odd because symmetric padding of kernel // 2 then keeps the feature map's side. 3 becomes 5 from multiplier
    4/3 on and 7 from 2 on.
    """
    if kernel == 1:
        return 1
    wanted = round(kernel * multiplier, _DECIMALS)
    return max(_SMALLEST_KERNEL, 2 * math.floor(wanted / 2) + 1)


def round_resolution(resolution_px: int, multiplier: float, *, multiple: int) -> int:
    """Return the image side in pixels: the nearest multiple of `multiple` (ties go up), and at least one of them."""
    wanted = round(resolution_px * multiplier, _DECIMALS)
    return max(1, math.floor(wanted / multiple + 0.5)) * multiple


def _neck_depth(scaling: Scaling) -> int:
    """Return the number of convolutions in a row between backbone and outputs; the decoder lraspp has none of them."""
    follows = scaling.neck_follows in ("width_depth", "all") and scaling.decoder != "lraspp"
    return round_depth(1, scaling.depth) if follows else 1


def _neck_kernel(scaling: Scaling) -> int:
    """Return the side of the kernels of these convolutions."""
    follows = scaling.neck_follows in ("width_kernel", "all") and scaling.decoder != "lraspp"
    return round_kernel(_SMALLEST_KERNEL, scaling.kernel) if follows else _SMALLEST_KERNEL


def _refuse_other_shapes(base: NetworkSpec, scaling: Scaling) -> None:
    """Raise ConfigError if the multipliers would change the shape of a user's own module."""
    if scaling != Scaling(resolution=scaling.resolution):
        message = (
            f"{base.origin} returns a torch module, of which only the resolution can be scaled: expected multipliers "
            f"of 1 for depth, width, kernel and stages, got {scaling}"
        )
        raise ConfigError(message)


def _scale_stage(stage: StageSpec, scaling: Scaling, own: StageScaling, multiple: int) -> StageSpec:
    width = scaling.width * own.width
    # A bottleneck's output is expansion times its hidden layer (ResNet, arXiv 1512.03385, figure 5). With the hidden
    # layer rounded, both are multiples; with the output rounded, the hidden layer could be a quarter of a multiple.
    factor = stage.expansion if stage.block == "bottleneck" else 1
    return replace(
        stage,
        depth=round_depth(stage.depth, scaling.depth * own.depth),
        channels=factor * round_channels(stage.channels // factor, width, multiple=multiple),
        kernel=round_kernel(stage.kernel, scaling.kernel * own.kernel),
    )


def _scale_head(head: HeadSpec, width: float, multiple: int) -> HeadSpec:
    if head.channels == 0:
        return head
    # MobileNetV2 (arXiv 1801.04381, section 6.1): "for multipliers less than one, we apply width multiplier to all
    # layers except the very last convolutional layer".
    factor = max(1.0, width) if head.width_rule == "at_least_base" else width
    return replace(head, channels=round_channels(head.channels, factor, multiple=multiple))


def _check(base: NetworkSpec, scaling: Scaling, *, resolution_px: int, num_classes: int, channel_multiple: int) -> None:
    for name, count, least in (
        ("resolution_px", resolution_px, 1),
        ("num_classes", num_classes, 0),
        ("channel_multiple", channel_multiple, 1),
    ):
        if count < least:
            message = f"{name} must be at least {least}, not {count}"
            raise ConfigError(message)
    if len(scaling.stages) > len(base.stages):
        message = (
            f"scaling.stages has {len(scaling.stages)} entries, but {base.name} has {len(base.stages)} stages: "
            f"give at most one for each of 1..{len(base.stages)}"
        )
        raise ConfigError(message)
    multipliers = [(name, getattr(scaling, name)) for name in _MULTIPLIERS]
    for number, own in enumerate(scaling.stages, start=1):
        multipliers += [(f"stages.{number}.{name}", getattr(own, name)) for name in ("depth", "width", "kernel")]
    for name, multiplier in multipliers:
        if not (math.isfinite(multiplier) and multiplier > 0):
            message = f"scaling.{name} must be a positive, finite multiplier such as 0.75, not {multiplier!r}"
            raise ConfigError(message)


def scale_base(space: SearchSpace, base: NetworkSpec, scaling: Scaling, num_classes: int = 10) -> NetworkSpec:
    """Return the base network of `space` at these multipliers."""
    return scale(
        base,
        scaling,
        resolution_px=space.input_size,
        num_classes=num_classes,
        resolution_multiple=space.resolution_multiple,
    )
