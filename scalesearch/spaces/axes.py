"""The dotted names of a space's axes: what each stands for, when a trial is asked for it, and how."""

import itertools
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

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
from scalesearch.values.space import AUTO, Axis, Choice, NamedAxis, Range

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
        for name in ("weights", "keep_float", "bias_correction")
    },
    "quantization.qat_steps": lambda asked: asked["quantization.precision"] == "int8",
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
    # Nor is it asked how the largest size is reached (`suggest`).
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
"""What was added with the schedule `wsd`. A study without the first of them was run with the schedule `cosine`."""


class TrialLike(Protocol):
    """What we need of a trial; Optuna's live, fixed and frozen trials all have it."""

    def suggest_categorical(self, name: str, choices: Sequence[OptunaChoice]) -> OptunaChoice:
        """Return one of `choices`."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a float from `low` to `high`, both included."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return an int from `low` to `high`, both included."""


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

    A name that is a word of the language has an underscore behind it there, for example `class`.
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
    types = get_type_hints(owner) if owner else {}
    if field_name not in types or field_name in _NESTED:
        near = nearest(name, (*plain_axis_names(), "scaling.stages.1.width"))
        hint = f"did you mean {near!r}?" if near else f"axes are {', '.join(plain_axis_names()[:5])}, ..."
        msg = f"unknown axis {name!r} in the search space: {hint}"
        raise ConfigError(msg)
    return types[field_name]


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


def ordered_values(named: NamedAxis) -> tuple[Value, ...]:
    """Return the listed values of a numeric choice, ascending and distinct; empty for ranges, names and switches."""
    if not isinstance(named.axis, Choice) or field_type(named.name) not in (int, float):
        return ()
    return tuple(sorted({typed(named.name, value) for value in named.axis.values}, key=float))


def index_name(name: str) -> str:
    """Name the Optuna parameter that holds the position in an unevenly spaced list instead of the value itself."""
    return f"{name}.index"


def is_asked_by_position(named: NamedAxis) -> bool:
    """Tell whether a sampled axis is an unevenly spaced list of numbers."""
    values = ordered_values(named)
    return len(values) > 1 and not is_even(values)


def is_even(values: Sequence[Value]) -> bool:
    """Tell whether ascending numbers are equally spaced."""
    return len({_decimal(after) - _decimal(before) for before, after in itertools.pairwise(values)}) == 1


def _decimal(value: Value) -> Decimal:
    """Return the number as it is written: 1.67 - 1 is then 0.67 and not 0.6699999999999999.

    Optuna checks its steps in the same way.
    """
    return Decimal(str(value))


def ask(trial: TrialLike, named: NamedAxis) -> Value:
    """Return the value that `trial` gives to a sampled axis, in the type of its field.

    Numbers are asked as numbers, since samplers learn an order from numeric distributions but not from categorical
    ones. An evenly spaced list becomes a stepped number, which can be read as it is. Any other list is asked by its
    position under `index_name`; the value itself is found in the trial's attributes.
    """
    name, axis = named.name, named.axis
    if isinstance(axis, Range):
        return _ask_range(trial, name, axis)
    values = ordered_values(named)
    if not values:
        return typed(name, trial.suggest_categorical(name, axis.values))  # type: ignore[arg-type]
    if is_asked_by_position(named):
        return values[trial.suggest_int(index_name(name), 0, len(values) - 1)]
    low, high = values[0], values[-1]
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, step=(high - low) // (len(values) - 1))
    step = float(_decimal(values[1]) - _decimal(low))
    number = trial.suggest_float(name, float(low), float(high), step=step)
    # The sampler computes low + k * step, which differs from the listed value by a rounding error.
    return min(values, key=lambda value: abs(float(value) - number))


def _ask_range(trial: TrialLike, name: str, axis: Range) -> Value:
    end = axis.last  # Optuna warns if the last step does not meet the upper end
    if field_type(name) is int:
        return trial.suggest_int(name, int(axis.low), int(end), step=int(axis.step) or 1, log=axis.log)
    number = trial.suggest_float(name, axis.low, end, step=axis.step or None, log=axis.log)
    # Optuna computes low + k * step, which differs by a rounding error from what a reader of the file would write.
    return float(f"{number:.12g}") if axis.step else number


def asking_order(axes: Sequence[NamedAxis]) -> tuple[NamedAxis, ...]:
    """Sort the axes so that conditional ones come last, each after those that its condition looks at."""
    order = list(CONDITIONS)
    return tuple(sorted(axes, key=lambda named: order.index(named.name) if named.name in order else -1))


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
