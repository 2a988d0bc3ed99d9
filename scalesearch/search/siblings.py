"""Candidates next to a trained network: in another precision, which costs seconds, or cut a little more or less."""

from dataclasses import replace
from typing import Any

from scalesearch.spaces.asking import asking_order, first_value, offers
from scalesearch.spaces.axes import (
    CONDITIONS,
    Value,
    axis_of,
    default_value,
    field_of,
    fixed_value,
    plain_axis_names,
)
from scalesearch.spaces.suggest import candidate_value
from scalesearch.values.candidate import Candidate, Pruning, Quantization
from scalesearch.values.space import Choice, SearchSpace

SIBLING_OF = "sibling_of"
"""The trial attribute with the number of the trial that this one is a sibling of."""

_PRECISION = "quantization.precision"
_CUT = "pruning.channel_fraction"


def siblings_of(candidate: Candidate, space: SearchSpace) -> tuple[Candidate, ...]:
    """Return the candidate in every other precision of the space.

    A setting that only the other precision uses takes its first value. A sibling never trains, so a precision that the
    space offers only with quantization-aware training has no sibling.
    """
    axis = axis_of(space.axes, _PRECISION)
    if not isinstance(axis, Choice):
        return ()
    others = [value for value in axis.values if value != candidate.quantization.precision]
    quantizations = [Quantization(**_part(candidate, _PRECISION, value, space)) for value in others]
    return tuple(replace(candidate, quantization=each) for each in quantizations if not each.aware_steps)


def next_cuts(candidate: Candidate, space: SearchSpace) -> tuple[Candidate, ...]:
    """Return the candidate with the next smaller and the next larger share of channels cut, as far as there are any.

    A setting that only the other cut uses takes its first value. There are none unless the space lists the shares.
    """
    axis = axis_of(space.axes, _CUT)
    if not isinstance(axis, Choice):
        return ()
    shares, own = sorted(float(value) for value in axis.values), candidate.pruning.channel_fraction
    smaller, larger = [share for share in shares if share < own][-1:], [share for share in shares if share > own][:1]
    prunings = [Pruning(**_part(candidate, _CUT, share, space)) for share in smaller + larger]
    return tuple(replace(candidate, pruning=each) for each in prunings)


def _part(candidate: Candidate, changed: str, value: Value, space: SearchSpace) -> dict[str, Any]:
    """Return the fields of the part of a candidate (its `quantization`, say) in which one axis has another value."""
    part = changed.partition(".")[0]
    names = [name for name in plain_axis_names() if name.startswith(f"{part}.")]
    chosen: dict[str, Value] = {name: default_value(name) for name in names} | {changed: value}
    for named in asking_order(space.axes):
        if named.name not in chosen or named.name == changed:
            continue
        fixed = fixed_value(named)
        if fixed is not None:
            chosen[named.name] = fixed
        elif named.name not in CONDITIONS or CONDITIONS[named.name](chosen):
            kept = candidate_value(candidate, named.name)
            chosen[named.name] = kept if offers(named, kept) else first_value(named)
    return {field_of(name.partition(".")[2]): chosen[name] for name in names}
