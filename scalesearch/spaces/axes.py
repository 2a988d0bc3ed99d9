"""The dotted names of a space's axes: what each stands for, when a trial is asked for it, and how."""

import functools
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from scalesearch.errors import ConfigError
from scalesearch.registry import nearest
from scalesearch.values.candidate import (
    CALIBRATED,
    LossWeights,
    Pruning,
    Quantization,
    Recipe,
    Scaling,
    ScheduleName,
    StageScaling,
)
from scalesearch.values.space import AUTO, Axis, Choice, NamedAxis

Value = float | int | str | bool
OptunaChoice = bool | int | float | str | None

_Group = type[Scaling] | type[Pruning] | type[Quantization] | type[Recipe] | type[LossWeights]
_GROUPS: dict[str, _Group] = {
    "scaling": Scaling,
    "pruning": Pruning,
    "quantization": Quantization,
    "training": Recipe,
    "training.loss_weights": LossWeights,
}
_NESTED = frozenset({"stages", "loss_weights"})
"""Fields that hold groups of their own."""
_STAGE = re.compile(r"scaling\.stages\.([1-9]\d*)\.(\w+)")

# A trial is not asked for an axis that has no effect on its candidate, so that candidates that mean the same work are
# equal. The axes are asked in this order: a condition looks only at axes that come before it.
CONDITIONS: dict[str, Callable[[Mapping[str, Value]], bool]] = {
    "quantization.calibration": lambda asked: asked["quantization.precision"] in CALIBRATED,
    "quantization.calibration_images": lambda asked: asked["quantization.precision"] in CALIBRATED,
    "quantization.clip_percentile": lambda asked: (
        asked["quantization.precision"] in CALIBRATED and asked["quantization.calibration"] == "percentile"
    ),
    **{
        f"quantization.{name}": lambda asked: asked["quantization.precision"] in CALIBRATED
        for name in ("weights", "keep_float")
    },
    "quantization.qat_steps": lambda asked: asked["quantization.precision"] == "int8",
    # Updates with simulated rounding train the biases beside the rounded weights: nothing is left to correct.
    "quantization.bias_correction": lambda asked: (
        asked["quantization.precision"] in CALIBRATED
        and not (asked["quantization.precision"] == "int8" and asked["quantization.qat_steps"])
    ),
    **{
        f"pruning.{name}": lambda asked: float(asked["pruning.channel_fraction"]) > 0
        for name in ("criterion", "scope", "rounds")
    },
    "pruning.sparse_fraction": lambda asked: asked["pruning.sparsity"] == "unstructured",
    "training.retrain_steps": lambda asked: (
        asked["training.schedule"] == "cosine"
        and (
            float(asked["pruning.channel_fraction"]) > 0
            or float(asked["pruning.block_fraction"]) > 0
            or asked["pruning.sparsity"] != "none"
        )
    ),
    "training.warmup_fraction": lambda asked: asked["training.schedule"] == "cosine",
    **{
        f"training.{name}": lambda asked: asked["training.schedule"] == "wsd"
        for name in ("branch_fraction", "warmup_steps")
    },
    "training.muon_learning_rate": lambda asked: asked["training.optimizer"] == "muon",
    "training.distill_temperature": lambda asked: float(asked["training.distill_weight"]) > 0,
    # `suggest` adds a condition: how a size is reached is not asked for the largest size.
    **{
        f"scaling.{name}_by": lambda asked: asked["training.schedule"] == "wsd" for name in ("width", "depth", "kernel")
    },
}


READ_BY: dict[str, tuple[ScheduleName, ...]] = {
    "training.retrain_steps": ("cosine",),
    "training.warmup_fraction": ("cosine",),
    "training.branch_fraction": ("wsd",),
    "training.warmup_steps": ("wsd",),
}
"""The schedules that read an axis of the training; the others are read by all."""

SCHEDULE_AXES: tuple[str, ...] = ("training.schedule", "training.branch_fraction", "training.warmup_steps")
"""The axes that came with the schedule `wsd`. A study without the first of them was run with the schedule `cosine`."""


def plain_axis_names() -> tuple[str, ...]:
    """Return every axis name except the per-stage ones (`scaling.stages.1.width`, ...)."""
    return tuple(
        f"{group}.{field.name.removesuffix('_')}"
        for group, owner in _GROUPS.items()
        for field in fields(owner)
        if field.name not in _NESTED
    )


def field_of(leaf: str) -> str:
    """Return the name of the dataclass field that the last part of an axis name stands for.

    The field of a name that is a Python keyword, such as `class`, ends with an underscore.
    """
    return f"{leaf}_" if keyword.iskeyword(leaf) else leaf


def stage_of(name: str) -> tuple[int, str] | None:
    """Return the 1-based stage and the multiplier that a per-stage name stands for; None for any other name."""
    match = _STAGE.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def field_type(name: str) -> Any:
    """Return the declared type of the candidate's field that an axis name stands for.

    Raises:
        ConfigError: If no candidate has such a field; the message suggests the nearest name.
    """
    stage = stage_of(name)
    owner = StageScaling if stage else _GROUPS.get(name.rpartition(".")[0])
    field_name = stage[1] if stage else field_of(name.rpartition(".")[2])
    types = _types_of(owner) if owner else {}  # type: ignore[arg-type]  # mypy takes a class for unhashable
    if field_name not in types or field_name in _NESTED:
        near = nearest(name, (*plain_axis_names(), "scaling.stages.1.width"))
        hint = f"did you mean {near!r}?" if near else f"axes are {', '.join(plain_axis_names()[:5])}, ..."
        msg = f"unknown axis {name!r} in the search space: {hint}"
        raise ConfigError(msg)
    return types[field_name]


@functools.cache
def _types_of(owner: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields. Kept, since a model of the search asks for them by the thousand."""
    return get_type_hints(owner)


def default_value(name: str) -> Value:
    """Return the value that a candidate has if the axis `name` is absent or not asked."""
    stage = stage_of(name)
    if stage:
        return getattr(StageScaling(), stage[1])  # type: ignore[no-any-return]
    group, _, leaf = name.rpartition(".")
    return getattr(_GROUPS[group](), field_of(leaf))  # type: ignore[no-any-return]


def typed(name: str, value: Value) -> Value:
    """Return `value` in the type of its field.

    The `1` of a TOML list becomes `1.0`, for example, so that equal candidates compare as equal.

    Raises:
        ConfigError: If the value does not fit the field.
    """
    wanted = field_type(name)
    if get_origin(wanted) is Literal:
        if value in get_args(wanted):
            return value
        expected = "one of " + ", ".join(map(repr, get_args(wanted)))
    else:
        if type(value) is wanted:
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            if wanted is float:
                return float(value)
            if wanted is int and float(value).is_integer():
                return int(value)
        expected = {int: "a whole number", float: "a number", bool: "true or false"}.get(wanted, "a string")
    msg = f"axis {name!r}: expected {expected}, got {value!r} ({type(value).__name__})"
    raise ConfigError(msg)


def fixed_value(named: NamedAxis) -> Value | None:
    """Return the value of an axis that has only one; None if the axis must be sampled."""
    if named.axis == AUTO:  # undecided as yet
        return default_value(named.name)
    axis = named.axis
    values = axis.values if isinstance(axis, Choice) else (axis.low, axis.high)
    return typed(named.name, values[0]) if len(set(values)) == 1 else None


def largest_value(axes: Sequence[NamedAxis], name: str) -> float:
    """Return the largest number that a numeric axis or switch can ask for; the default if there is no such axis.

    A switch counts as 0 or 1; one that is left to the program may become 1.
    """
    axis = axis_of(axes, name)
    if axis is None:
        return float(default_value(name))
    if axis == AUTO:
        return 1.0
    return max(float(value) for value in (axis.values if isinstance(axis, Choice) else (axis.low, axis.high)))


def axis_of(axes: Sequence[NamedAxis], name: str) -> Axis | None:
    """Return the axis of that name, or None if the space does not have it."""
    return next((named.axis for named in axes if named.name == name), None)
