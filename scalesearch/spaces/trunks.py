"""The multipliers of the network whose trunk a candidate is cut from: the largest that its space can ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from scalesearch.spaces.axes import Value, axis_of, stage_of
from scalesearch.values.candidate import Scaling, StageScaling
from scalesearch.values.space import Axis, NamedAxis, Range, SearchSpace

CUTTABLE: Final = ("width", "depth", "kernel")
"""The multipliers below whose largest value a network can be cut; the setting of `width` is `width_by`."""
BY_AXES: Final = {f"scaling.{name}_by": name for name in CUTTABLE}
"""The axes that say how a size is reached, with their multipliers."""


def trunk_scaling(space: SearchSpace, scaling: Scaling) -> Scaling:
    """Return the multipliers of the trunk of a candidate with these multipliers.

    A multiplier that is reached by `cut` (and that of every stage) becomes the largest of the space, but is never below
    the candidate's own, which need not lie in the space. All others, such as the resolution, stay as they are.
    """
    cut = tuple(name for name in CUTTABLE if getattr(scaling, f"{name}_by") == "cut")
    if not cut:
        return scaling
    numbers = [stage[0] for named in space.axes if (stage := stage_of(named.name))]
    count = max(len(scaling.stages), *numbers) if numbers else len(scaling.stages)
    own = (*scaling.stages, *(StageScaling(),) * (count - len(scaling.stages)))
    stages = (
        replace(stage, **_enlarged(space.axes, f"scaling.stages.{number}", stage, cut))
        for number, stage in enumerate(own, 1)
    )
    return replace(scaling, **_enlarged(space.axes, "scaling", scaling, cut), stages=tuple(stages))


def is_below_largest(axes: Sequence[NamedAxis], chosen: Mapping[str, Value], multiplier: str) -> bool:
    """Tell whether the multiplier, or that of a stage, is below the largest that the axes allow.

    Args:
        axes: The axes of a space.
        chosen: Values by the names of axes.
        multiplier: One of `CUTTABLE`.
    """
    return any(
        named.name in chosen and float(chosen[named.name]) < _largest(named.axis)
        for named in axes
        if named.name == f"scaling.{multiplier}" or ((stage := stage_of(named.name)) and stage[1] == multiplier)
    )


def _enlarged(
    axes: Sequence[NamedAxis], place: str, owner: Scaling | StageScaling, names: Sequence[str]
) -> dict[str, Any]:
    """Return the named multipliers of `owner`, each as large as its axis allows."""
    found = {name: axis_of(axes, f"{place}.{name}") for name in names}
    return {
        name: max(getattr(owner, name), _largest(axis)) if axis else getattr(owner, name)
        for name, axis in found.items()
    }


def _largest(axis: Axis) -> float:
    return axis.last if isinstance(axis, Range) else max(float(value) for value in axis.values)
