"""A network's layers as rows, from the image to the classes, each with its output."""

from collections.abc import Iterator
from dataclasses import dataclass

from scalesearch.values.network_spec import InputSize, NetworkSpec

_POOL_KERNEL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One stage of a network, or one of the layers before and after the stages."""

    stage: str
    block: str
    repeats: int
    channels: int
    kernel: int
    stride: int
    """Stride of the first of the repeated blocks; the others keep the size."""
    output: InputSize
    """Size of the feature map at its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltParts:
    """Which parts of a spec a network has: that depends on its task (`tasks.base.PartViews`)."""

    stages: int
    """Number of stages, from the first one on."""
    classifier: bool
    """Whether the head's convolution, pooling and a linear layer follow the stages, as in a classifier. Otherwise the
    layers after the stages are the task's own."""


def all_parts(spec: NetworkSpec) -> BuiltParts:
    """Return the parts of a network that has everything in its spec: a classifier."""
    return BuiltParts(stages=len(spec.stages), classifier=True)


def layer_rows(spec: NetworkSpec, parts: BuiltParts | None = None) -> tuple[LayerRow, ...]:
    """Return the rows of stem, pooling, stages, head and classifier, with the spec's channels before any pruning.

    A network without classes has no row for a classifier. A user's own module has no rows at all: its layers are not
    known without calling its function.

    Args:
        spec: The network.
        parts: Which parts of it were built; None: all of them.
    """
    return () if spec.origin else tuple(_rows(spec, parts or all_parts(spec)))


def _rows(spec: NetworkSpec, parts: BuiltParts) -> Iterator[LayerRow]:
    # Odd kernels, padded by half of themselves: the side is divided by the stride and rounded up.
    stem = spec.stem
    size = _shrunk(spec.input_size, stem.stride)
    yield _row("stem", "convolution", channels=stem.channels, kernel=stem.kernel, stride=stem.stride, size=size)
    channels = stem.channels
    if stem.pool:
        size = _shrunk(size, 2)
        yield _row("stem", "max pooling", channels=channels, kernel=_POOL_KERNEL, stride=2, size=size)
    for place, stage in enumerate(spec.stages[: parts.stages], 1):
        size, channels = _shrunk(size, stage.stride), stage.channels
        expansion = f", expansion {stage.expansion}" if stage.expansion != 1 else ""
        yield LayerRow(
            stage=str(place),
            block=stage.block.replace("_", " ") + expansion,
            repeats=stage.depth,
            channels=channels,
            kernel=stage.kernel,
            stride=stage.stride,
            output=size,
        )
    if not parts.classifier:
        return
    if spec.head.channels:
        channels = spec.head.channels
        yield _row("head", "convolution", channels=channels, kernel=1, stride=1, size=size)
    yield _row("head", "average pooling", channels=channels, kernel=max(size.sides), stride=1, size=InputSize.square(1))
    if spec.num_classes:
        yield _row("classes", "linear", channels=spec.num_classes, kernel=1, stride=1, size=InputSize.square(1))


def _shrunk(size: InputSize, stride: int) -> InputSize:
    height_px, width_px = (-(-side_px // stride) for side_px in size.sides)
    return InputSize(height_px=height_px, width_px=width_px)


def _row(stage: str, block: str, *, channels: int, kernel: int, stride: int, size: InputSize) -> LayerRow:
    return LayerRow(stage=stage, block=block, repeats=1, channels=channels, kernel=kernel, stride=stride, output=size)
