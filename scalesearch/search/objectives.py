"""The two objectives of a record: score (maximized) and latency (minimized)."""

import math

from scalesearch.values.latency import LATENCY_NAMES
from scalesearch.values.quality import DEFAULT_METRIC
from scalesearch.values.record import TrialRecord


def objectives(record: TrialRecord) -> tuple[float, float] | None:
    """Return (score, latency in milliseconds) of a complete record or a repeat of one; None for any other."""
    if record.state not in ("complete", "cached") or record.quality is None or record.latency is None:
        return None
    return (float(record.quality.score), float(record.latency.p50_ms))


def _objective_names(record: TrialRecord) -> tuple[str, str]:
    score = record.quality.metric if record.quality else DEFAULT_METRIC
    return (score, record.latency.name if record.latency else LATENCY_NAMES["engine"])


def not_finite(record: TrialRecord) -> str:
    """Name the objective that no sampler may be told of, with its value; empty if both are finite numbers.

    A latency of 0 or less is named too. Optuna would store +inf as a complete trial, which would spoil every later
    suggestion.
    """
    values = objectives(record) or ()
    for place, (name, value) in enumerate(zip(_objective_names(record), values, strict=False)):
        if not math.isfinite(value) or (place == 1 and value <= 0):
            return f"{name} is {value}"
    return ""
