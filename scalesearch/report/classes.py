"""Per-class precision, recall and curves of front members, as compact numbers for the page's script."""

from collections.abc import Sequence
from typing import Any

from scalesearch.records.report import percent, precision_label
from scalesearch.values.record import ClassQuality, TrialRecord

MOST_ROWS = 20_000
"""Classes times members; beyond it, members are left out evenly (the knee stays)."""
MOST_POINTS = 60_000
"""Of all curves together; beyond it, curves are thinned, and then kept for the weakest classes only."""
_FINEST, _COARSEST = 25, 6


def class_data(front: Sequence[TrialRecord], knee: TrialRecord | None) -> dict[str, Any]:
    """`names`, and for each shown member its columns: support, per mille of precision, recall and average precision.

    A curve is `[recall, precision, recall, ...]` in per mille, or None where it was left out; `left_out` counts the
    members that did not fit.
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
    return {"names": names, "members": shown, "first": first, "left_out": len(members) - len(kept)}


def _classes(record: TrialRecord) -> tuple[ClassQuality, ...]:
    assert record.quality is not None
    return record.quality.classes


def _spread(members: Sequence[TrialRecord], most: int, knee: TrialRecord | None) -> list[TrialRecord]:
    """At most `most` members, evenly over the front, both ends and the knee among them."""
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


def _place(members: Sequence[TrialRecord], trial: int) -> int:
    return next(place for place, record in enumerate(members) if record.trial == trial)


def _member(record: TrialRecord, longest: int, with_curve: int) -> dict[str, Any]:
    assert record.quality and record.latency
    classes = record.quality.classes
    weakest = sorted(range(len(classes)), key=lambda place: classes[place].average_precision)
    drawn = frozenset(weakest[:with_curve])
    return {
        "trial": record.trial,
        "label": f"trial {record.trial}: {percent(record.quality.top1)}, {record.latency.p50_ms:.4g} ms, "
        f"{precision_label(record.candidate.quantization)}",
        "support": [entry.support for entry in classes],
        "precision": [_mille(entry.precision) for entry in classes],
        "recall": [_mille(entry.recall) for entry in classes],
        "average": [_mille(entry.average_precision) for entry in classes],
        "curves": [thin(entry.curve, longest) if place in drawn else None for place, entry in enumerate(classes)],
    }


def thin(curve: Sequence[tuple[float, float]], longest: int) -> list[int]:
    """The curve at `longest` points or fewer, ends kept, flat: recall, precision, recall, ... in per mille."""
    if len(curve) > longest:
        last = len(curve) - 1
        curve = [curve[round(place * last / (longest - 1))] for place in range(longest)]
    return [_mille(value) for pair in curve for value in pair]


def _mille(fraction: float) -> int:
    return round(1000 * fraction) if fraction == fraction else 0  # NaN: a class without images
