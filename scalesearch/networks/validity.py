"""Check whether a spec can be built. Base networks that make no sense are refused only here."""

import math
from collections.abc import Iterator
from typing import get_args

from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import (
    Activation,
    BlockKind,
    HeadSpec,
    HeadWidthRule,
    NetworkSpec,
    Padding,
    StageSpec,
    StemSpec,
)

_BLOCKS: tuple[str, ...] = get_args(BlockKind)
_ACTIVATIONS: tuple[str, ...] = get_args(Activation)
_WIDTH_RULES: tuple[str, ...] = get_args(HeadWidthRule)
_PADDINGS: tuple[str, ...] = get_args(Padding)


# Far beyond any network that was ever trained. Without a bound, one wrong digit uses up all memory without a message.
_MOST = {
    "resolution_px": 16_384,
    "width_px": 16_384,
    "num_classes": 1_000_000,
    "image_channels": 1024,
    "channels": 65_536,
    "stride": 64,
    "depth": 1024,
    "expansion": 256,
    "kernel": 255,
    "neck_depth": 1024,
    "neck_kernel": 255,
}


def check_spec(spec: NetworkSpec) -> None:
    """Raise ConfigError if the spec cannot be built.

    The message names the first three faults by their dotted places.
    """
    faults = [*_kind_faults(spec)] or [*_input_faults(spec), *(() if spec.origin else _built_faults(spec))]
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        message = f"network {spec.name!r} cannot be built: {'; '.join(faults[:3])}{more}"
        raise ConfigError(message)


def require_unit_pixels(spec: NetworkSpec) -> None:
    """Raise ConfigError if a spec's mean and std are of pixels in 0..255; images are given in 0..1.

    A study that was begun with such a spec goes on: this is asked of new ones alone.
    """
    if not (all(0 <= each <= 1 for each in spec.mean) and all(0 < each <= 1 for each in spec.std)):
        message = (
            f"network {spec.name!r}: expected mean and std of pixels in 0..1, came {spec.mean!r} and {spec.std!r}.\n"
            "Divide both by 255."
        )
        raise ConfigError(message)


def _kind_faults(spec: NetworkSpec) -> Iterator[str]:
    """Yield the parts that are not of the right type.

    A user's function may return such parts, since dataclasses do not check types.
    """
    if not isinstance(spec.name, str):
        yield f"name must be a text, not {spec.name!r}"
    if not isinstance(spec.stem, StemSpec):
        yield f"stem must be a StemSpec, not {type(spec.stem).__name__}"
    if not isinstance(spec.head, HeadSpec):
        yield f"head must be a HeadSpec, not {type(spec.head).__name__}"
    if not isinstance(spec.stages, tuple) or not all(isinstance(stage, StageSpec) for stage in spec.stages):
        yield f"stages must be a tuple of StageSpec, not {type(spec.stages).__name__}"
    if isinstance(spec.norm_eps, bool) or not isinstance(spec.norm_eps, int | float):
        yield f"norm_eps must be a number, not {spec.norm_eps!r}"
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if not isinstance(values, tuple) or not all(isinstance(value, int | float) for value in values):
            yield f"{name} must be a tuple of numbers, not {values!r}"


def _input_faults(spec: NetworkSpec) -> Iterator[str]:
    yield from _below("resolution_px", spec.resolution_px, 1)
    yield from _below("width_px", spec.width_px, 0)
    yield from _below("num_classes", spec.num_classes, 0)
    if spec.image_channels not in (1, 3) or isinstance(spec.image_channels, bool):
        yield f"image_channels must be 1 (grey) or 3 (RGB), not {spec.image_channels!r}"
    elif (spec.mean or spec.std) and not len(spec.mean) == len(spec.std) == spec.image_channels:
        yield (
            f"mean and std must have as many numbers as image_channels ({spec.image_channels}), not {spec.mean!r} and "
            f"{spec.std!r}"
        )
    elif not (all(map(math.isfinite, spec.mean)) and all(0 < each < math.inf for each in spec.std)):
        yield f"mean must be finite and std above 0, not {spec.mean!r} and {spec.std!r}"


def _built_faults(spec: NetworkSpec) -> Iterator[str]:
    """Yield the faults of the parts of which a network is built."""
    if not spec.stages:
        yield "stages is empty, at least one is needed"
    yield from _below("stem.channels", spec.stem.channels, 1)
    yield from _below("stem.stride", spec.stem.stride, 1)
    yield from _even("stem.kernel", spec.stem.kernel)
    yield from _below("head.channels", spec.head.channels, 0)
    yield from _below("neck_depth", spec.neck_depth, 1)
    yield from _even("neck_kernel", spec.neck_kernel)
    yield from _unknown("head.width_rule", spec.head.width_rule, _WIDTH_RULES)
    yield from _unknown("activation", spec.activation, _ACTIVATIONS)
    yield from _unknown("padding", spec.padding, _PADDINGS)
    if spec.padding == "same" and spec.stem.pool:
        yield "stem.pool pads symmetrically, so padding must be symmetric, not 'same'"
    if not 0 < spec.norm_eps < 1:
        yield f"norm_eps must be positive and below 1, not {spec.norm_eps!r}"
    for number, stage in enumerate(spec.stages, start=1):
        place = f"stages.{number}"
        for name in ("depth", "channels", "stride", "expansion"):
            yield from _below(f"{place}.{name}", getattr(stage, name), 1)
        yield from _even(f"{place}.kernel", stage.kernel)
        yield from _unknown(f"{place}.block", stage.block, _BLOCKS)
        yield from _expansion_faults(place, stage)


def _expansion_faults(place: str, stage: StageSpec) -> Iterator[str]:
    if not (isinstance(stage.channels, int) and isinstance(stage.expansion, int)):
        return  # told already
    if stage.block == "bottleneck" and stage.expansion >= 1 and stage.channels % stage.expansion:
        yield f"{place}.channels ({stage.channels}) must be a multiple of its expansion ({stage.expansion})"
    if stage.block == "basic" and stage.expansion != 1:
        yield f"{place}.expansion must be 1 in a basic block, not {stage.expansion}"


def _below(place: str, value: int, least: int) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        yield f"{place} must be a whole number of at least {least}, not {value!r}"
    else:
        yield from _beyond(place, value)


def _even(place: str, value: int) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value % 2 == 0:
        yield f"{place} must be odd, not {value!r}"
    else:
        yield from _beyond(place, value)


def _beyond(place: str, value: int) -> Iterator[str]:
    most = _MOST[place.rpartition(".")[2]]
    if value > most:
        shown = value if value < 10**30 else "far more"
        yield f"{place} must be at most {most}, not {shown}"


def _unknown(place: str, value: str, known: tuple[str, ...]) -> Iterator[str]:
    if value not in known:
        yield f"{place} must be one of {', '.join(known)}, not {value!r}"
