"""Fit a search space to its study: to the target, to the decisions of the first run, and to the machine's memory."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from scalesearch.config import check_axes
from scalesearch.data.framing import crop_box
from scalesearch.errors import ConfigError
from scalesearch.host import available_bytes
from scalesearch.networks.scaling import scale_base
from scalesearch.spaces.axes import SCHEDULE_AXES, Value, axis_of, default_value, fixed_value, largest_value
from scalesearch.spaces.suggest import for_target
from scalesearch.values.candidate import Scaling
from scalesearch.values.network_spec import InputSize, NetworkSpec
from scalesearch.values.settings import Fit
from scalesearch.values.space import AUTO, FLIP, Choice, SearchSpace
from scalesearch.values.target import Target

if TYPE_CHECKING:
    from scalesearch.tasks.base import Task

_RESOLUTION: Final = "scaling.resolution"
_MOST_SIZES: Final = 32
"""As many sizes of images are tried before a run; building a network without weights takes some ten milliseconds."""

_CRITERION: Final = "pruning.criterion"
_INHERITED_CRITERION: Final = "taylor"
"""What ranks the channels of a network with trained weights, unless the space says otherwise.

On a fine-tuned parent Taylor beat L2 by 4 to 19 points (docs/measurements.md, "What matters about a branch").
"""


def fitted_space(
    space: SearchSpace, base: NetworkSpec, target: Target, stored: SearchSpace | None, *, parent: str = ""
) -> SearchSpace:
    """Return the space with what the study's first run decided, and without what the target cannot run.

    Args:
        space: The space that was asked for.
        base: Its base network.
        target: The chip.
        stored: The space of the study's first run; None for a new study.
        parent: The source of the trained parent; empty for none.

    Raises:
        ConfigError: No value of an axis is left, or an axis asks for what the base network does not have.
    """
    space = _with_schedule(space, stored)
    space = with_criterion(space, base, stored, parent=parent)
    space = for_target(_as_decided_before(space, stored) if stored else space, target)
    check_axes(space, base)
    return space


def _with_schedule(space: SearchSpace, stored: SearchSpace | None) -> SearchSpace:
    """Return the space with the schedule of its trainings written out: the stored study's, or today's default.

    A study thus keeps the schedule that it was begun with, even if a later version has another default.
    """
    for name in SCHEDULE_AXES:
        value = _fixed(stored, name) if stored else default_value(name)
        if value is not None:
            space = space.with_fixed(name, value)
    return space


def with_criterion(space: SearchSpace, base: NetworkSpec, stored: SearchSpace | None, *, parent: str) -> SearchSpace:
    """Return the space with the criterion of its channel cuts written out, if it has cuts and names no criterion.

    It is the stored study's, or, in a new study, that for trained weights if the candidates start from any.
    """
    if largest_value(space.axes, "pruning.channel_fraction") == 0:
        return space
    value = _fixed(stored, _CRITERION) if stored else _INHERITED_CRITERION if parent or base.origin else None
    return space if value is None else space.with_fixed(_CRITERION, value)


def _as_decided_before(space: SearchSpace, stored: SearchSpace) -> SearchSpace:
    """Return the space with the first run's decision on whether training mirrors images.

    A study whose space said nothing of mirror images, as default spaces of before, goes on without them.
    """
    if space.flip_undecided and axis_of(stored.axes, FLIP) is None:
        return replace(space, axes=tuple(named for named in space.axes if named.name != FLIP))
    flip = _fixed(stored, FLIP)
    return space if flip is None else space.with_flip(flip=bool(flip))


def _fixed(space: SearchSpace, name: str) -> Value | None:
    """Return the only value of the axis of that name; None if it has more, is left to the program, or is not there."""
    named = next((named for named in space.axes if named.name == name), None)
    return None if named is None or named.axis == AUTO else fixed_value(named)


def largest_input(space: SearchSpace, base: NetworkSpec) -> InputSize:
    """Return the size of the largest image that the space can ask for, or that multiplier 1 (the reference) needs."""
    largest = max(largest_value(space.axes, _RESOLUTION), 1.0)
    return scale_base(space, base, Scaling(resolution=largest)).input_size


def size_notes(space: SearchSpace, base: NetworkSpec, fit: Fit) -> Iterator[str]:
    """Yield a line if the sides that `resolution_px` asks for are rounded, since images get another shape by that.

    Args:
        space: The search space.
        base: Its base network.
        fit: How images are given their size.
    """
    asked, size = space.input_size, scale_base(space, base, Scaling()).input_size
    if size == asked:
        return
    left, top, right, bottom = crop_box(asked.width_px, asked.height_px, size)
    kept = InputSize(height_px=bottom - top, width_px=right - left)
    why = "" if space.resolution_multiple or base.origin else ", the network's total stride"
    cut = f"; of an image of {asked} the crop keeps {kept}" if fit == "crop" and kept != asked else ""
    yield (
        f"images: resolution_px asks for {asked}, which becomes {size}: sides are multiples of "
        f"{space.resolution_multiple or base.total_stride} px{why}{cut}"
    )


def require_sizes(space: SearchSpace, base: NetworkSpec, task: "Task") -> None:
    """Build the task's networks without weights at the space's sizes, so that none is refused in the middle of a run.

    Sizes that the total stride divides are all alike: beside the reference's, at multiplier 1, only others are tried.

    Raises:
        ConfigError: The task builds no network for images of one of these sizes.
    """
    from scalesearch.networks.build import outline

    if base.origin:  # looked at by `require_fit`
        return
    reference = scale_base(space, base, Scaling())
    asked = dict.fromkeys(scale_base(space, base, Scaling(resolution=value)) for value in _resolutions(space))
    odd = (spec for spec in asked if any(side % base.total_stride for side in spec.input_size.sides))
    for spec in (reference, *islice(odd, _MOST_SIZES)):
        outline(spec, task.make_module)


def _resolutions(space: SearchSpace) -> tuple[float, ...]:
    """Return the multipliers of the resolution that the space lists; of a continuous range, some from end to end."""
    axis = axis_of(space.axes, _RESOLUTION)
    if axis is None:
        return ()
    if isinstance(axis, Choice) or axis.step:
        return tuple(float(value) for value in axis.values)
    return tuple(axis.low + (axis.high - axis.low) * place / _MOST_SIZES for place in range(_MOST_SIZES + 1))


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
