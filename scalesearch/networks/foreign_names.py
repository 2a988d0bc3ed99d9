"""The names that torchvision, timm and EfficientNet-Lite's package give to the layers of our base networks.

Weights are mapped by name, never by order: safetensors sorts names.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from scalesearch.values.network_spec import NetworkSpec, StageSpec

Pairs = Iterator[tuple[str, str]]
"""Names of one layer: ours, theirs."""


def resnet(spec: NetworkSpec) -> Pairs:
    """Yield the layers of a ResNet of torchvision or timm, which use the same names."""
    yield from _both("stem", "conv1", "bn1")
    for number, block, stage in _blocks(spec):
        ours, theirs = f"stages.{number}.{block}", f"layer{number + 1}.{block}"
        for place in range(2 if stage.block == "basic" else 3):
            yield from _both(f"{ours}.body.{place}", f"{theirs}.conv{place + 1}", f"{theirs}.bn{place + 1}")
        if _projects(spec, number, block):
            yield from _both(f"{ours}.shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    yield "classifier", "fc"


def torchvision_mobilenet_v2(spec: NetworkSpec) -> Pairs:
    """Yield the layers of torchvision's MobileNetV2."""
    yield from _both("stem", "features.0.0", "features.0.1")
    at = 1
    for number, block, stage in _blocks(spec):
        ours, theirs = f"stages.{number}.{block}.body", f"features.{at}.conv"
        last = 1 if stage.expansion == 1 else 2
        for place in range(last):
            yield from _both(f"{ours}.{place}", f"{theirs}.{place}.0", f"{theirs}.{place}.1")
        yield from _both(f"{ours}.{last}", f"{theirs}.{last}", f"{theirs}.{last + 1}")
        at += 1
    yield from _both("head", f"features.{at}.0", f"features.{at}.1")
    yield "classifier", "classifier.1"


def torchvision_efficientnet(spec: NetworkSpec) -> Pairs:
    """Yield the layers of torchvision's EfficientNet."""
    yield from _both("stem", "features.0.0", "features.0.1")
    for number, block, stage in _blocks(spec):
        ours, theirs = f"stages.{number}.{block}.body", f"features.{number + 1}.{block}.block"
        squeeze = 1 if stage.expansion == 1 else 2
        for place in range(squeeze + 2):
            if place == squeeze:
                yield f"{ours}.{place}.squeeze", f"{theirs}.{place}.fc1"
                yield f"{ours}.{place}.excite", f"{theirs}.{place}.fc2"
            else:
                yield from _both(f"{ours}.{place}", f"{theirs}.{place}.0", f"{theirs}.{place}.1")
    last = len(spec.stages) + 1
    yield from _both("head", f"features.{last}.0", f"features.{last}.1")
    yield "classifier", "classifier.1"


def lite_package(spec: NetworkSpec) -> Pairs:
    """Yield the layers of the packages efficientnet_pytorch and efficientnet_lite_pytorch."""
    yield from _both("stem", "_conv_stem", "_bn0")
    for at, (number, block, stage) in enumerate(_blocks(spec)):
        ours, theirs, place = f"stages.{number}.{block}.body", f"_blocks.{at}", 0
        if stage.expansion != 1:
            yield from _both(f"{ours}.0", f"{theirs}._expand_conv", f"{theirs}._bn0")
            place = 1
        yield from _both(f"{ours}.{place}", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        if stage.block == "mbconv":
            place += 1
            yield f"{ours}.{place}.squeeze", f"{theirs}._se_reduce"
            yield f"{ours}.{place}.excite", f"{theirs}._se_expand"
        yield from _both(f"{ours}.{place + 1}", f"{theirs}._project_conv", f"{theirs}._bn2")
    yield from _both("head", "_conv_head", "_bn1")
    yield "classifier", "_fc"


def timm_efficientnet(spec: NetworkSpec) -> Pairs:
    """Yield the layers of timm's EfficientNets and MobileNetV2s."""
    yield from _both("stem", "conv_stem", "bn1")
    for number, block, stage in _blocks(spec):
        ours, theirs = f"stages.{number}.{block}.body", f"blocks.{number}.{block}"
        convolutions = ("conv_dw", "conv_pw") if stage.expansion == 1 else ("conv_pw", "conv_dw", "conv_pwl")
        place = 0
        for at, convolution in enumerate(convolutions, 1):
            yield from _both(f"{ours}.{place}", f"{theirs}.{convolution}", f"{theirs}.bn{at}")
            place += 1
            if convolution == "conv_dw" and stage.block == "mbconv":
                yield f"{ours}.{place}.squeeze", f"{theirs}.se.conv_reduce"
                yield f"{ours}.{place}.excite", f"{theirs}.se.conv_expand"
                place += 1
    yield from _both("head", "conv_head", "bn2")
    yield "classifier", "classifier"


FOREIGN: Mapping[str, Mapping[str, Callable[[NetworkSpec], Pairs]]] = MappingProxyType(
    {
        "resnet18": {"torchvision": resnet},
        "resnet50": {"torchvision": resnet},
        "mobilenet_v2": {"torchvision": torchvision_mobilenet_v2, "timm": timm_efficientnet},
        "efficientnet_b0": {
            "torchvision": torchvision_efficientnet,
            "timm": timm_efficientnet,
            "efficientnet_pytorch": lite_package,
        },
        "efficientnet_lite0": {"efficientnet_lite_pytorch": lite_package, "timm": timm_efficientnet},
    }
)
"""By base network and by the library that gives the names: all layers that hold weights. The convolution and norm of a
Sequential are called `name.conv` and `name.norm` here, since their numbers in it depend on the padding."""

OF_TIMM: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "resnet18": ("resnet18",),
        "resnet50": ("resnet50",),
        "mobilenet_v2": ("mobilenetv2_100",),
        "efficientnet_b0": ("efficientnet_b0", "tf_efficientnet_b0"),
        "efficientnet_lite0": ("efficientnet_lite0", "tf_efficientnet_lite0"),
    }
)
"""By base network: timm's names, before the dot, of the networks that compute the same, whatever their padding. Others
have weights of the same names and shapes, too: resnetaa50 and resnetblur50 blur before they stride."""


def _both(ours: str, convolution: str, norm: str) -> Pairs:
    yield f"{ours}.conv", convolution
    yield f"{ours}.norm", norm


def _blocks(spec: NetworkSpec) -> Iterator[tuple[int, int, StageSpec]]:
    """Yield the place (stage, block) of each block, both from 0, and its stage."""
    for number, stage in enumerate(spec.stages):
        for block in range(stage.depth):
            yield number, block, stage


def _projects(spec: NetworkSpec, number: int, block: int) -> bool:
    """Tell whether a block's shortcut is a projection."""
    before = spec.stages[number - 1].channels if number else spec.stem.channels
    return block == 0 and (spec.stages[number].stride != 1 or spec.stages[number].channels != before)
