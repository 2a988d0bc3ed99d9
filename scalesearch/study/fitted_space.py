"""A study's space: written out as its first run decided it, and no larger than the machine's memory."""

from typing import Final

from scalesearch.config import check_axes
from scalesearch.errors import ConfigError
from scalesearch.memory import available_bytes
from scalesearch.networks.scaling import scale_base
from scalesearch.spaces.axes import SCHEDULE_AXES, default_value, largest_value
from scalesearch.spaces.suggest import for_target
from scalesearch.values.candidate import Scaling
from scalesearch.values.network_spec import InputSize, NetworkSpec
from scalesearch.values.space import FLIP, Choice, NamedAxis, SearchSpace
from scalesearch.values.target import Target

STEPS: Final = "training.steps"
_FORMER_STEPS: Final = {
    "resnet_small": (240, 480),
    "resnet_small_compressed": (240, 480),
    "resnet_small_compress_only": (240, 480),
}
"""By a shipped space's name: the updates of each training that it asked for once, and those that it asks for now."""


def fitted_space(space: SearchSpace, base: NetworkSpec, target: Target, stored: SearchSpace | None) -> SearchSpace:
    """Return the space without what the target cannot run, with what the study's first run decided for it.

    Args:
        space: The space that was asked for.
        base: Its base network.
        target: The chip.
        stored: The space of the study's first run; None for a new study.

    Raises:
        ConfigError: No value of an axis is left, or an axis asks for what the base network does not have.
    """
    space = _with_steps(_with_schedule(space, stored), stored)
    space = for_target(_as_decided_before(space, stored) if stored else space, target)
    check_axes(space, base)
    return space


def _with_schedule(space: SearchSpace, stored: SearchSpace | None) -> SearchSpace:
    """Return the space with the schedule of its trainings written out: the stored study's, or today's default.

    So a study goes on with the schedule that it was begun with, whatever a later version's default is.
    """
    for name in SCHEDULE_AXES:
        held = next((named.axis for named in stored.axes if named.name == name), None) if stored else None
        if stored is None:
            space = space.with_fixed(name, default_value(name))
        elif isinstance(held, Choice) and len(held.values) == 1:
            space = space.with_fixed(name, held.values[0])
    return space


def _with_steps(space: SearchSpace, stored: SearchSpace | None) -> SearchSpace:
    """Return the space with the updates that it asked for when the study was begun, if its default was changed since.

    Any other number that was asked for stays, and is refused later if it is not the study's.
    """
    former, now = _FORMER_STEPS.get(space.name, (0, 0))
    if stored and (fixed_value(stored, STEPS), fixed_value(space, STEPS)) == (former, now):
        return space.with_axis(NamedAxis(name=STEPS, axis=Choice(values=(former,))))
    return space


def fixed_value(space: SearchSpace, name: str) -> object:
    """Return the single value of the axis of that name; None if it has several, or the space has no such axis."""
    axis = next((named.axis for named in space.axes if named.name == name), None)
    return axis.values[0] if isinstance(axis, Choice) and len(axis.values) == 1 else None


def _as_decided_before(space: SearchSpace, stored: SearchSpace) -> SearchSpace:
    """Return the space with the first run's decision whether training mirrors images."""
    axis = next((named.axis for named in stored.axes if named.name == FLIP), None)
    decided = isinstance(axis, Choice) and len(axis.values) == 1
    return space.with_flip(flip=bool(axis.values[0])) if decided and isinstance(axis, Choice) else space


def largest_input(space: SearchSpace, base: NetworkSpec) -> InputSize:
    """Return the size of the largest image that the space can ask for, or that multiplier 1 (the reference) needs."""
    largest = max(largest_value(space.axes, "scaling.resolution"), 1.0)
    return scale_base(space, base, Scaling(resolution=largest)).input_size


def require_batch_memory(space: SearchSpace, size: InputSize) -> None:
    """Raise ConfigError where one training batch of the largest images would not fit into memory."""
    images = int(largest_value(space.axes, "training.batch_size"))
    size_bytes = images * size.pixels * 3 * 4  # red, green and blue in float32; the layers need more
    if size_bytes > available_bytes() / 2:
        message = (
            f"{space.name}: a training batch of {images} images at {size} takes {size_bytes / 1e9:.1f} GB before "
            f"the first layer, expected at most half of the {available_bytes() / 1e9:.1f} GB of memory available.\n"
            "Use a smaller training.batch_size, resolution_px or scaling.resolution."
        )
        raise ConfigError(message)
