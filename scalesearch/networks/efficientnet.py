"""EfficientNet (arXiv 1905.11946, table 1): MBConv with squeeze-and-excitation, B0's plain form, and a small one.

Stochastic depth is left out: it has no parameters, and brief training of small networks does not overfit enough to
need it.
"""

from dataclasses import replace

from scalesearch.values.network_spec import HeadSpec, NetworkSpec, StageSpec, StemSpec


def efficientnet_b0() -> NetworkSpec:
    """Return EfficientNet-B0: 0.39 GMACs and 5.29 M parameters at 224 px.

    B1 to B7 are its published multipliers.
    """
    return NetworkSpec(
        name="efficientnet_b0",
        resolution_px=224,
        num_classes=1000,
        stem=StemSpec(channels=32, kernel=3, stride=2),
        stages=(
            _stage(depth=1, channels=16, kernel=3, stride=1, expansion=1),
            _stage(depth=2, channels=24, kernel=3, stride=2),
            _stage(depth=2, channels=40, kernel=5, stride=2),
            _stage(depth=3, channels=80, kernel=3, stride=2),
            _stage(depth=3, channels=112, kernel=5, stride=1),
            _stage(depth=4, channels=192, kernel=5, stride=2),
            _stage(depth=1, channels=320, kernel=3, stride=1),
        ),
        head=HeadSpec(channels=1280),
        activation="silu",
    )


def efficientnet_lite0() -> NetworkSpec:
    """Return EfficientNet-Lite0: B0 without squeeze-and-excitation and with ReLU6, 0.38 GMACs and 4.65 M parameters.

    It is the form for chips that compute in integers. Epsilon and padding are those of its ImageNet weights, which come
    from TensorFlow (github.com/tensorflow/tpu, models/official/efficientnet/lite).
    """
    base = efficientnet_b0()
    return replace(
        base,
        name="efficientnet_lite0",
        stages=tuple(replace(stage, block="inverted_residual") for stage in base.stages),
        activation="relu6",
        norm_eps=1e-3,
        padding="same",
    )


def efficientnet_small() -> NetworkSpec:
    """Return an EfficientNet for 64 px images, sensible from 16 to 96 px."""
    return NetworkSpec(
        name="efficientnet_small",
        resolution_px=64,
        num_classes=43,
        stem=StemSpec(channels=16, kernel=3, stride=2),
        stages=(
            _stage(depth=1, channels=16, kernel=3, stride=1, expansion=1),
            _stage(depth=1, channels=24, kernel=3, stride=2, expansion=4),
            _stage(depth=2, channels=32, kernel=3, stride=2, expansion=4),
            _stage(depth=2, channels=64, kernel=3, stride=1, expansion=4),
        ),
        head=HeadSpec(channels=192),
        activation="silu",
    )


def _stage(*, depth: int, channels: int, kernel: int, stride: int, expansion: int = 6) -> StageSpec:
    return StageSpec(block="mbconv", depth=depth, channels=channels, kernel=kernel, stride=stride, expansion=expansion)
