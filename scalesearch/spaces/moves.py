"""Draw candidates at random, and move one by a step on an axis, without Optuna."""

import math
from collections.abc import Mapping

import numpy as np

from scalesearch.spaces.asking import offers, ordered_values
from scalesearch.spaces.axes import Value, field_type, fixed_value, typed
from scalesearch.spaces.suggest import candidate_value, candidate_with
from scalesearch.values.candidate import Candidate
from scalesearch.values.space import NamedAxis, Range, SearchSpace

_MOST_LISTED = 1000
_PART = 0.1
"""A value on a range without steps moves by at most this part of the range."""


def free_axes(space: SearchSpace) -> tuple[NamedAxis, ...]:
    """Return the axes that have more than one value."""
    return tuple(named for named in space.axes if fixed_value(named) is None)


def drawn(space: SearchSpace, random: np.random.Generator, given: Mapping[str, Value] | None = None) -> Candidate:
    """Return a random candidate of the space.

    Args:
        space: The search space.
        random: Source of the random numbers.
        given: Values by the names of their axes, which are not drawn.
    """
    values = {named.name: _any_value(named, random) for named in free_axes(space)}
    return candidate_with(values | dict(given or {}), space)


def moved(candidate: Candidate, space: SearchSpace, random: np.random.Generator) -> Candidate:
    """Return the candidate with one axis, chosen at random, moved by one step.

    A number in a list or a stepped range becomes the next smaller or larger one, a name any other. An axis that has no
    effect on the candidate may be chosen, too; the candidate then stays as it is. An axis that the move gives an effect
    takes a random value, unless the candidate has one of the space. A stepped range whose first step lies beyond its
    upper end has one number, which stays.
    """
    axes = free_axes(space)
    values = {named.name: _own_value(named, candidate, random) for named in axes}
    if axes:
        named = axes[int(random.integers(len(axes)))]
        values[named.name] = _next_value(named, values[named.name], random)
    return candidate_with(values, space)


def _own_value(named: NamedAxis, candidate: Candidate, random: np.random.Generator) -> Value:
    """Return the candidate's value if it lies on the axis, as a default need not; otherwise a random one."""
    value = candidate_value(candidate, named.name)
    return value if offers(named, value) else _any_value(named, random)


def _numbers(named: NamedAxis) -> tuple[Value, ...]:
    """Return all numbers of the axis, ascending; empty for names, and for a range that is too fine to list."""
    axis = named.axis
    if not isinstance(axis, Range):
        return ordered_values(named)
    whole = field_type(named.name) is int and not axis.step and axis.high - axis.low < _MOST_LISTED and not axis.log
    values = range(int(axis.low), int(axis.high) + 1) if whole else axis.values
    return tuple(typed(named.name, value) for value in values)


def _any_value(named: NamedAxis, random: np.random.Generator) -> Value:
    values = _numbers(named)
    if isinstance(named.axis, Range) and not values:
        return _on_range(named, named.axis, float(random.random()))
    values = values or named.axis.values
    return typed(named.name, values[int(random.integers(len(values)))])


def _next_value(named: NamedAxis, value: Value, random: np.random.Generator) -> Value:
    step = 1 if random.integers(2) else -1
    values = _numbers(named)
    if values:
        place = min(range(len(values)), key=lambda each: abs(float(values[each]) - float(value)))
        last = len(values) - 1
        if last == 0:
            return values[0]
        return values[place + (1 if place == 0 else -1 if place == last else step)]
    if isinstance(named.axis, Range):
        low, high, at = (_scaled(named.axis, number) for number in (named.axis.low, named.axis.high, float(value)))
        near = _on_range(named, named.axis, (at - low) / (high - low) + step * _PART * float(random.random()))
        if near != value or field_type(named.name) is not int:
            return near
        return int(min(named.axis.high, max(named.axis.low, int(value) + step)))
    others = [other for each in named.axis.values if (other := typed(named.name, each)) != value]
    return others[int(random.integers(len(others)))]


def _scaled(axis: Range, number: float) -> float:
    return math.log(number) if axis.log else number


def _on_range(named: NamedAxis, axis: Range, part: float) -> Value:
    """Return the value that lies at this part of a range without steps, which may be logarithmic."""
    half = 0.5 if field_type(named.name) is int else 0.0  # so that rounding reaches the ends as often as the others
    low, high = _scaled(axis, axis.low - half), _scaled(axis, axis.high + half)
    at = low + min(1.0, max(0.0, part)) * (high - low)
    number = min(axis.high, max(axis.low, math.exp(at) if axis.log else at))
    return typed(named.name, round(number) if field_type(named.name) is int else number)
