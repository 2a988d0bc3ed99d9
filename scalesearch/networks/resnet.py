"""ResNet (arXiv 1512.03385, table 1): basic and bottleneck blocks, and a small one for 64 px images."""

from scalesearch.values.network_spec import HeadSpec, NetworkSpec, StageSpec, StemSpec


def resnet18() -> NetworkSpec:
    """Return ResNet-18: 1.81 GMACs and 11.69 M parameters at 224 px."""
    return NetworkSpec(
        name="resnet18",
        resolution_px=224,
        num_classes=1000,
        stem=StemSpec(channels=64, kernel=7, stride=2, pool=True),
        stages=(
            StageSpec(block="basic", depth=2, channels=64, kernel=3, stride=1),
            StageSpec(block="basic", depth=2, channels=128, kernel=3, stride=2),
            StageSpec(block="basic", depth=2, channels=256, kernel=3, stride=2),
            StageSpec(block="basic", depth=2, channels=512, kernel=3, stride=2),
        ),
        head=HeadSpec(),
    )


def resnet50() -> NetworkSpec:
    """Return ResNet-50: 4.09 GMACs and 25.56 M parameters at 224 px.

    The stride is in the 3x3 convolution, as in torchvision.
    """
    return NetworkSpec(
        name="resnet50",
        resolution_px=224,
        num_classes=1000,
        stem=StemSpec(channels=64, kernel=7, stride=2, pool=True),
        stages=(
            StageSpec(block="bottleneck", depth=3, channels=256, kernel=3, stride=1, expansion=4),
            StageSpec(block="bottleneck", depth=4, channels=512, kernel=3, stride=2, expansion=4),
            StageSpec(block="bottleneck", depth=6, channels=1024, kernel=3, stride=2, expansion=4),
            StageSpec(block="bottleneck", depth=3, channels=2048, kernel=3, stride=2, expansion=4),
        ),
        head=HeadSpec(),
    )


def resnet_scene() -> NetworkSpec:
    """Return a ResNet for pictures of scenes of about 96 x 160 px, with feature maps at strides 4, 8, 16 and 32.

    It is meant for detection and segmentation, whose heads read several feature maps.
    """
    return NetworkSpec(
        name="resnet_scene",
        resolution_px=96,
        width_px=160,
        num_classes=8,
        stem=StemSpec(channels=16, kernel=3, stride=2),
        stages=(
            StageSpec(block="basic", depth=1, channels=24, kernel=3, stride=2),
            StageSpec(block="basic", depth=1, channels=40, kernel=3, stride=2),
            StageSpec(block="basic", depth=1, channels=64, kernel=3, stride=2),
            StageSpec(block="basic", depth=1, channels=96, kernel=3, stride=2),
        ),
        head=HeadSpec(),
    )


def resnet_small() -> NetworkSpec:
    """Return a ResNet for 64 px images, sensible from 16 to 96 px."""
    return NetworkSpec(
        name="resnet_small",
        resolution_px=64,
        num_classes=43,
        stem=StemSpec(channels=16, kernel=3, stride=2),
        stages=(
            StageSpec(block="basic", depth=1, channels=24, kernel=3, stride=2),
            StageSpec(block="basic", depth=1, channels=48, kernel=3, stride=2),
            StageSpec(block="basic", depth=1, channels=64, kernel=3, stride=1),
        ),
        head=HeadSpec(),
    )
