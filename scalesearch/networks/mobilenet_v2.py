"""MobileNetV2 (arXiv 1801.04381, table 2): inverted residuals, and a small one for 64 px images."""

from scalesearch.values.network_spec import HeadSpec, NetworkSpec, StageSpec, StemSpec


def mobilenet_v2() -> NetworkSpec:
    """Return MobileNetV2: 0.30 GMACs and 3.50 M parameters at 224 px."""
    return NetworkSpec(
        name="mobilenet_v2",
        resolution_px=224,
        num_classes=1000,
        stem=StemSpec(channels=32, kernel=3, stride=2),
        stages=(
            _stage(depth=1, channels=16, stride=1, expansion=1),
            _stage(depth=2, channels=24, stride=2),
            _stage(depth=3, channels=32, stride=2),
            _stage(depth=4, channels=64, stride=2),
            _stage(depth=3, channels=96, stride=1),
            _stage(depth=3, channels=160, stride=2),
            _stage(depth=1, channels=320, stride=1),
        ),
        head=HeadSpec(channels=1280, width_rule="at_least_base"),
        activation="relu6",
    )


def mobilenet_small() -> NetworkSpec:
    """Return a MobileNetV2 for 64 px images, sensible from 16 to 96 px."""
    return NetworkSpec(
        name="mobilenet_small",
        resolution_px=64,
        num_classes=43,
        stem=StemSpec(channels=16, kernel=3, stride=2),
        stages=(
            _stage(depth=1, channels=16, stride=1, expansion=1),
            _stage(depth=1, channels=24, stride=2, expansion=4),
            _stage(depth=2, channels=32, stride=2, expansion=4),
            _stage(depth=2, channels=64, stride=1, expansion=4),
        ),
        head=HeadSpec(channels=192, width_rule="at_least_base"),
        activation="relu6",
    )


def _stage(*, depth: int, channels: int, stride: int, expansion: int = 6) -> StageSpec:
    return StageSpec(
        block="inverted_residual", depth=depth, channels=channels, kernel=3, stride=stride, expansion=expansion
    )
