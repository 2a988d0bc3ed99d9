"""Other precisions of a trained network. They cost seconds, so those of candidates near the front are evaluated too."""

from dataclasses import replace
from typing import Any

from scalesearch.spaces.asking import ordered_values
from scalesearch.spaces.axes import CONDITIONS, Value, axis_of, fixed_value, typed
from scalesearch.spaces.suggest import candidate_value
from scalesearch.values.candidate import Candidate, Quantization
from scalesearch.values.space import Choice, NamedAxis, SearchSpace

SIBLING_OF = "sibling_of"
"""The trial attribute with the number of the trial that this one is a sibling of."""

_PRECISION = "quantization.precision"


def siblings_of(candidate: Candidate, space: SearchSpace) -> tuple[Candidate, ...]:
    """Return the candidate in every other precision of the space.

    A setting that only the other precision uses takes its first value. A sibling never trains, so a precision that the
    space offers only with quantization-aware training has no sibling.
    """
    axis = axis_of(space.axes, _PRECISION)
    if not isinstance(axis, Choice):
        return ()
    others = [value for value in axis.values if value != candidate.quantization.precision]
    quantizations = [_quantization(candidate, str(value), space) for value in others]
    return tuple(replace(candidate, quantization=each) for each in quantizations if not each.qat_steps)


def _quantization(candidate: Candidate, precision: str, space: SearchSpace) -> Quantization:
    fields: dict[str, Any] = {"precision": precision}
    asked: dict[str, Value] = {_PRECISION: precision}
    for named in space.axes:
        group, _, name = named.name.partition(".")
        if group != "quantization" or name == "precision":
            continue
        fixed = fixed_value(named)
        if fixed is None and named.name in CONDITIONS and not CONDITIONS[named.name](asked):
            continue
        kept = candidate_value(candidate, named.name)
        value = fixed if fixed is not None else kept if _offers(named, kept) else _first(named)
        fields[name] = asked[named.name] = value
    return Quantization(**fields)


def _offers(named: NamedAxis, value: Value) -> bool:
    axis = named.axis
    if isinstance(axis, Choice):
        return value in axis.values
    return axis.low <= float(value) <= axis.high


def _first(named: NamedAxis) -> Value:
    axis = named.axis
    if not isinstance(axis, Choice):
        return typed(named.name, axis.low)
    ordered = ordered_values(named)
    return ordered[0] if ordered else typed(named.name, axis.values[0])
