"""Asks an Optuna trial for the value of an axis."""

import itertools
from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

from scalesearch.spaces.axes import CONDITIONS, OptunaChoice, Value, field_type, typed
from scalesearch.values.space import Choice, NamedAxis, Range


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


def ordered_values(named: NamedAxis) -> tuple[Value, ...]:
    """Return the listed values of a numeric choice, ascending and distinct; empty for ranges, names and switches."""
    if not isinstance(named.axis, Choice) or field_type(named.name) not in (int, float):
        return ()
    return tuple(sorted({typed(named.name, value) for value in named.axis.values}, key=float))


def first_value(named: NamedAxis) -> Value:
    """Return the smallest number of the axis, or the name that is listed first."""
    axis = named.axis
    lowest = axis.values[0] if isinstance(axis, Choice) else axis.low
    ordered = ordered_values(named)
    return ordered[0] if ordered else typed(named.name, lowest)


def offers(named: NamedAxis, value: Value) -> bool:
    """Tell whether the value lies on the axis, as the default of an axis need not."""
    axis = named.axis
    return value in axis.values if isinstance(axis, Choice) else axis.low <= float(value) <= axis.last


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
    """Return the number as it is written in decimals: 1.67 - 1 is then 0.67 and not 0.6699999999999999.

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
