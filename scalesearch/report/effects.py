"""The effect of each axis: score and latency of all trials at each of its values, as a table with drawn ranges."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scalesearch.analysis.front import point
from scalesearch.analysis.importance import as_wide_as, varied_axes
from scalesearch.spaces.suggest import candidate_value
from scalesearch.values.quality import metric_title, score_noun
from scalesearch.values.record import TrialRecord
from scalesearch.values.space import NamedAxis, Range, SearchSpace
from scalesearch.views.markup import text
from scalesearch.views.palette import BLUE, RED

_BINS = 4
_WIDTH, _HEIGHT = 160, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Quartiles of some numbers."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """The measured trials at one value (or in one part of the range) of an axis."""

    value: str
    trials: int
    score: Spread
    p50_ms: Spread


def axis_levels(records: Sequence[TrialRecord], space: SearchSpace) -> tuple[tuple[str, tuple[Level, ...]], ...]:
    """Return (axis, its levels in order) for every axis that varied.

    These are the axes that every candidate has and that took two values or more.
    """
    new = (record for record in records if record.same_as is None and not record.short)
    measured = [record for record in new if record.quality and record.latency]
    return tuple((named.name, _levels(measured, named)) for named in varied_axes(measured, space))


def _levels(records: Sequence[TrialRecord], named: NamedAxis) -> tuple[Level, ...]:
    groups: dict[tuple[float, str], list[TrialRecord]] = {}
    values = [candidate_value(record.candidate, named.name) for record in records]
    if isinstance(named.axis, Range):
        named = replace(named, axis=as_wide_as(named.axis, map(float, values)))
    for record, value in zip(records, values, strict=True):
        groups.setdefault(_level_of(value, named), []).append(record)
    return tuple(
        Level(
            value=name,
            trials=len(found),
            score=_spread([point(record)[0] for record in found]),
            p50_ms=_spread([point(record)[1] for record in found]),
        )
        for (_, name), found in sorted(groups.items())
    )


def _level_of(value: float | int | str | bool, named: NamedAxis) -> tuple[float, str]:
    """Return (place in the order, name) of the level that a value belongs to."""
    if isinstance(value, str | bool) or not isinstance(named.axis, Range):
        return (0.0, str(value)) if isinstance(value, str | bool) else (float(value), f"{value:g}")
    axis = named.axis
    scale = math.log if axis.log else float
    low, high = scale(axis.low), scale(axis.high)
    place = min(_BINS - 1, int(_BINS * (scale(float(value)) - low) / (high - low or 1.0)))
    edges = [low + step * (high - low) / _BINS for step in (place, place + 1)]
    first, last = (math.exp(edge) if axis.log else edge for edge in edges)
    return (float(place), f"{first:.3g} to {last:.3g}")


def _spread(values: Sequence[float]) -> Spread:
    if len(values) == 1:
        return Spread(low=values[0], middle=values[0], high=values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(low=low, middle=middle, high=high)


def effects_table(axes: Sequence[tuple[str, tuple[Level, ...]]], metric: str, latency: str) -> str:
    """Return the levels as one table. A bar spans half of the trials; the line in it is the median.

    Args:
        axes: The axes' names and levels.
        metric: Name of the score.
        latency: Name of the latency as people write it: `p50`, or `end-to-end`.
    """
    title, noun = metric_title(metric), score_noun(metric)
    every = [level for _, levels in axes for level in levels]
    score_ends = (min(level.score.low for level in every), max(level.score.high for level in every))
    ms_ends = (min(level.p50_ms.low for level in every), max(level.p50_ms.high for level in every))
    rows = []
    for name, levels in axes:
        for place, level in enumerate(levels):
            head = f'<th scope="rowgroup" rowspan="{len(levels)}">{text(name)}</th>' if place == 0 else ""
            rows.append(
                f'<tr{" class=first" if place == 0 else ""}>{head}<th scope="row">{text(level.value)}</th>'
                f"<td>{level.trials}</td><td>{100 * level.score.middle:.1f} %</td>"
                f"<td>{_bar(level.score, score_ends, BLUE, log=False)}</td>"
                f"<td>{level.p50_ms.middle:.3g} ms</td><td>{_bar(level.p50_ms, ms_ends, RED, log=True)}</td></tr>"
            )
    caption = f"Median {noun} and latency of the trials at each value of each axis; bars hold the middle half"
    head = "".join(
        f'<th scope="col"{span}>{words}</th>'
        for words, span in (
            ("axis", ""),
            ("value", ""),
            ("trials", ""),
            (title, ' colspan="2"'),
            (f"{latency} (log scale)", ' colspan="2"'),
        )
    )
    return (
        f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0"><table class="effects"><caption>'
        f"{caption}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _bar(spread: Spread, ends: tuple[float, float], colour: str, *, log: bool) -> str:
    def x(value: float) -> float:
        low, high, at = (math.log(end) if log else end for end in (*ends, value))
        return round(4 + (_WIDTH - 8) * (at - low) / (high - low or 1.0), 1)

    width = max(1.0, x(spread.high) - x(spread.low))
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" aria-hidden="true"><path d="M4 8H{_WIDTH - 4}" stroke="#ddd"/>'
        f'<rect x="{x(spread.low)}" y="4" width="{width:.1f}" height="8" fill="{colour}" opacity=".45"/>'
        f'<path d="M{x(spread.middle)} 1V15" stroke="{colour}" stroke-width="3"/></svg>'
    )
