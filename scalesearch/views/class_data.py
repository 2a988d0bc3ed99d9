"""Precision, recall and curves of each class for the members of the front, as compact numbers for the page's script."""

from collections.abc import Sequence
from typing import Any, Literal

from scalesearch.values.quality import ClassQuality
from scalesearch.values.record import MeasuredTrial
from scalesearch.views.words import percent

MOST_ROWS = 20_000
"""Largest number of classes times members. Beyond it, members are left out evenly (the knee stays)."""
MOST_POINTS = 60_000
"""Largest number of points of all curves together. Beyond it, curves are thinned, and then kept for the weakest classes
only.
"""
_FINEST, _COARSEST = 25, 6


def class_data(
    front: Sequence[MeasuredTrial],
    knee: MeasuredTrial | None,
    *,
    noun: str = "images",
    weakest_by: Literal["recall", "average"] = "recall",
) -> dict[str, Any]:
    """Return the class names and, for each shown member, its columns by class.

    The columns are the support, and precision, recall and average precision in per mille. A curve is `[recall,
    precision, recall, ...]` in per mille, or None if it was left out; `left_out` counts the members that did not fit.

    Args:
        front: The front's members.
        knee: The member that is shown first.
        noun: What the support counts, in the plural.
        weakest_by: The column by which the page sorts the classes, lowest first and those without support last.
    """
    members = [record for record in front if record.quality and record.quality.classes]
    if not members:
        return {"names": [], "members": [], "left_out": 0}
    names = [entry.name for entry in _classes(members[0])]
    kept = _spread(members, max(1, MOST_ROWS // len(names)), knee)
    points = MOST_POINTS // (len(kept) * len(names))
    longest = max(_COARSEST, min(_FINEST, points))
    with_curve = len(names) if points >= _COARSEST else max(1, MOST_POINTS // (len(kept) * _COARSEST))
    shown = [_member(record, longest, with_curve) for record in kept]
    first = next((place for place, record in enumerate(kept) if knee and record.trial == knee.trial), 0)
    told = {"noun": noun, "weakest_by": weakest_by, "left_out": len(members) - len(kept)}
    return {"names": names, "members": shown, "first": first, **told}


def _classes(record: MeasuredTrial) -> tuple[ClassQuality, ...]:
    return record.quality.classes


def _spread(members: Sequence[MeasuredTrial], most: int, knee: MeasuredTrial | None) -> list[MeasuredTrial]:
    """Return at most `most` members, spread evenly over the front, with both ends and the knee among them."""
    if len(members) <= most:
        return list(members)
    wanted = {round(place * (len(members) - 1) / max(1, most - 1)) for place in range(most)}
    chosen = [record for place, record in enumerate(members) if place in wanted]
    if knee and all(record.trial != knee.trial for record in chosen):
        nearest = min(
            range(len(chosen)), key=lambda place: abs(members.index(chosen[place]) - _place(members, knee.trial))
        )
        chosen[nearest] = members[_place(members, knee.trial)]
    return chosen


def _place(members: Sequence[MeasuredTrial], trial: int) -> int:
    return next(place for place, record in enumerate(members) if record.trial == trial)


def _member(record: MeasuredTrial, longest: int, with_curve: int) -> dict[str, Any]:
    classes = record.quality.classes
    weakest = sorted(range(len(classes)), key=lambda at: (not classes[at].support, classes[at].average_precision))
    drawn = frozenset(weakest[:with_curve])
    return {
        "trial": record.trial,
        "label": f"trial {record.trial}: {percent(record.quality.score)}, {record.latency.p50_ms:.4g} ms, "
        f"{record.candidate.quantization.label}",
        "support": [entry.support for entry in classes],
        "precision": [_mille(entry.precision) for entry in classes],
        "recall": [_mille(entry.recall) for entry in classes],
        "average": [_mille(entry.average_precision) for entry in classes],
        "curves": [thin(entry.curve, longest) if place in drawn else None for place, entry in enumerate(classes)],
    }


def thin(curve: Sequence[tuple[float, float]], longest: int) -> list[int]:
    """Return the curve at `longest` points or fewer, its ends kept, as a flat list in per mille.

    The list is recall, precision, recall, ...

    Args:
        curve: Pairs (recall, precision) as fractions.
        longest: Largest number of points, at least 2.
    """
    if len(curve) > longest:
        last = len(curve) - 1
        curve = [curve[round(place * last / (longest - 1))] for place in range(longest)]
    return [_mille(value) for pair in curve for value in pair]


def _mille(fraction: float) -> int:
    return round(1000 * fraction) if fraction == fraction else 0  # a class without images has NaN
