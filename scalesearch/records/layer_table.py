"""A network's layers as rows, from the image to the classes, each with what it gives out."""

from collections.abc import Iterator
from dataclasses import dataclass

from scalesearch.values.network_spec import NetworkSpec

_POOL_KERNEL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One stage of a network, or what stands before and behind them."""

    stage: str
    block: str
    repeats: int
    channels: int
    kernel: int
    stride: int
    """Of the first of the repeats; the others keep the size."""
    output_px: int
    """Side of the square feature map that it gives out."""


def layer_rows(spec: NetworkSpec) -> tuple[LayerRow, ...]:
    """Stem, pooling, stages, head and classifier; channels as the spec has them, before any pruning."""
    return tuple(_rows(spec))


def _rows(spec: NetworkSpec) -> Iterator[LayerRow]:
    # Odd kernels, padded by half of themselves: the side is divided by the stride and rounded up.
    stem = spec.stem
    side = -(-spec.resolution_px // stem.stride)
    yield _row("stem", "convolution", channels=stem.channels, kernel=stem.kernel, stride=stem.stride, side=side)
    channels = stem.channels
    if stem.pool:
        side = -(-side // 2)
        yield _row("stem", "max pooling", channels=channels, kernel=_POOL_KERNEL, stride=2, side=side)
    for place, stage in enumerate(spec.stages, 1):
        side, channels = -(-side // stage.stride), stage.channels
        expansion = f", expansion {stage.expansion}" if stage.expansion != 1 else ""
        yield LayerRow(
            stage=str(place),
            block=stage.block.replace("_", " ") + expansion,
            repeats=stage.depth,
            channels=channels,
            kernel=stage.kernel,
            stride=stage.stride,
            output_px=side,
        )
    if spec.head.channels:
        channels = spec.head.channels
        yield _row("head", "convolution", channels=channels, kernel=1, stride=1, side=side)
    yield _row("head", "average pooling", channels=channels, kernel=side, stride=1, side=1)
    yield _row("classes", "linear", channels=spec.num_classes, kernel=1, stride=1, side=1)


def _row(stage: str, block: str, *, channels: int, kernel: int, stride: int, side: int) -> LayerRow:
    return LayerRow(
        stage=stage, block=block, repeats=1, channels=channels, kernel=kernel, stride=stride, output_px=side
    )
