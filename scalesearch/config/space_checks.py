"""Check a space as a whole: whether its axes fit one another and the base network."""

from collections.abc import Iterable

from scalesearch.config.checks import fail
from scalesearch.spaces.trunks import BY_AXES
from scalesearch.values.candidate import Recipe, Scaling
from scalesearch.values.network_spec import InputSize, NetworkSpec
from scalesearch.values.space import Choice, NamedAxis, Range, SearchSpace

MAX_RESOLUTION_PX = 8192
"""Largest allowed side of an image in pixels, with the multiplier applied. A batch of 64 such images takes 13 GB."""

_BUILT_HERE = ("scaling.depth", "scaling.width", "scaling.kernel", "scaling.stages.", "pruning.block_fraction")
"""The axes that change how a network is built, by the beginnings of their names."""


def check_axes(space: SearchSpace, base: NetworkSpec) -> None:
    """Raise ConfigError if the space reshapes a user's own module, or scales a stage that the network lacks."""
    if base.origin:
        _check_module_axes(space)
    check_stages(space, len(base.stages))


def _as_it_is(axis: str) -> str | int:
    """Return the value with which the axis leaves the network as it is."""
    return "scratch" if axis in BY_AXES else 0 if axis == "pruning.block_fraction" else 1


def _check_module_axes(space: SearchSpace) -> None:
    """Raise ConfigError if the space has an axis that a user's own module does not support."""
    asked = [
        named.name
        for named in space.axes
        if named.name.startswith(_BUILT_HERE) and named.axis != Choice(values=(_as_it_is(named.name),))
    ]
    if asked:
        fixed = " ".join(f"--set {name}={_as_it_is(name)}" for name in asked)
        fail(
            f"space {space.name!r} asks for {', '.join(asked)}, and {space.network} returns a torch module, which is "
            "never built anew.",
            "On a module are searched: resolution, channels, zeros, precision, calibration, and the training.",
            f"Take --space resnet_small_compress_only, or fix them: {fixed}",
        )


def check_stages(space: SearchSpace, stages: int) -> None:
    """Raise ConfigError if the space scales a stage that its base network does not have."""
    for named in space.axes:
        if named.name.startswith("scaling.stages.") and int(named.name.split(".")[2]) > stages:
            fail(
                f"{space.name}: {named.name} names a stage that {space.network} does not have.",
                f"Its stages are numbered 1 to {stages}.",
            )


def check_cuts(axes: Iterable[NamedAxis], origin: str) -> None:
    """Raise ConfigError if networks are to be cut from trunks, but no schedule of the space has a trunk."""
    by_name = {named.name: named.axis for named in axes}
    asked = [name for name in BY_AXES if isinstance(axis := by_name.get(name), Choice) and "cut" in axis.values]
    schedules = by_name.get("training.schedule", Choice(values=(Recipe().schedule,)))
    if asked and isinstance(schedules, Choice) and "wsd" not in schedules.values:
        fail(
            f'{origin}: {asked[0]} asks for "cut", which cuts a trunk where its branch begins, and training.schedule = '
            f"{schedules.values[0]!r} has no trunk.",
            f'Take training.schedule = "wsd", or {asked[0]} = "scratch".',
        )


def check_neck(axes: Iterable[NamedAxis], origin: str) -> None:
    """Raise ConfigError if a neck is to follow a size that is reached by a cut, which changes the backbone alone."""
    by_name = {named.name: named.axis for named in axes}
    follows = by_name.get("scaling.neck_follows", Choice(values=(Scaling().neck_follows,)))
    for size in ("depth", "kernel"):
        by = by_name.get(f"scaling.{size}_by")
        wanted = {f"width_{size}", "all"} & set(follows.values if isinstance(follows, Choice) else ())
        if wanted and isinstance(by, Choice) and "cut" in by.values:
            fail(
                f'{origin}: scaling.neck_follows = "{min(wanted)}" and scaling.{size}_by = "cut": a cut shortens the '
                "backbone alone.",
                f'Take scaling.{size}_by = "scratch", or a neck that does not follow the {size}.',
            )


def check_largest(size: InputSize, axes: Iterable[NamedAxis], origin: str) -> None:
    """Raise ConfigError if the space can ask for images larger than `MAX_RESOLUTION_PX`."""
    axis = next((named.axis for named in axes if named.name == "scaling.resolution"), None)
    if axis is None:
        return
    largest = axis.high if isinstance(axis, Range) else max(float(value) for value in axis.values)
    side_px = max(size.sides)
    if side_px * largest > MAX_RESOLUTION_PX:
        fail(
            f"{origin}: resolution_px = {side_px} times scaling.resolution {largest:g} gives images of "
            f"{side_px * largest:.0f} px; allowed is up to {MAX_RESOLUTION_PX} px."
        )
