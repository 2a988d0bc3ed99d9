"""What Optuna is told of a record: constraints, readable attributes, values and state."""

import math
from dataclasses import fields

import optuna
from optuna.trial import TrialState

from scalesearch.search.axes import Value, is_asked_by_position
from scalesearch.search.dashboard import annotate_trial
from scalesearch.search.siblings import SIBLING_OF
from scalesearch.search.space import candidate_value
from scalesearch.values.record import LimitUse, TrialRecord
from scalesearch.values.record import TrialState as RecordState
from scalesearch.values.space import SearchSpace

_STATES: dict[RecordState, TrialState] = {
    "complete": TrialState.COMPLETE,
    "cached": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "rejected": TrialState.PRUNED,
}
_MAX_TEXT = 200  # longer attributes widen the dashboard's page


def tell(study: optuna.Study, trial: optuna.Trial, record: TrialRecord, space: SearchSpace) -> None:
    """Nothing; the trial is finished in the study as the record says. Safe to repeat after a kill in the middle."""
    told = study.get_trials(deepcopy=False)[trial.number].constraints
    for use in constraints(record, space):
        if use.limit not in told:
            trial.set_constraint(use.limit, use.excess)
    for name, value in attributes(record, space).items():
        trial.set_user_attr(name, value)
    annotate_trial(study, trial, record)
    study.tell(trial, values=objectives(record), state=_STATES[record.state])


def objectives(record: TrialRecord) -> tuple[float, float] | None:
    """(top1, p50_ms) of a complete record or a repeat of one; None for any other."""
    if record.state not in ("complete", "cached") or record.quality is None or record.latency is None:
        return None
    return (float(record.quality.top1), float(record.latency.p50_ms))


def constraints(record: TrialRecord, space: SearchSpace) -> tuple[LimitUse, ...]:
    """One use for every limit of the space, the same ones in the same order for every record.

    The GP sampler matches constraints by their place in the list, which is that of their insertion or of their
    names, as the storage likes: so they are inserted by name. A limit that the trial never came to counts as kept: 0.
    """
    limits = space.limits
    known = {use.limit: use.excess for use in record.limits}
    names = sorted(field.name for field in fields(limits) if getattr(limits, field.name) is not None)
    return tuple(LimitUse(limit=name, excess=float(known.get(name, 0.0))) for name in names)


def attributes(record: TrialRecord, space: SearchSpace) -> dict[str, Value]:
    """What the dashboard shows beside objectives and parameters: Python scalars only, for SQLite takes no numpy ones.

    Axes that are asked by position (`scaling.width.index`) show their value here, as `scaling.width`.
    """
    by_position = [named.name for named in space.axes if is_asked_by_position(named)]
    shown: dict[str, Value | None] = {
        "state": record.state,
        "feasible": record.feasible,
        "charged": record.charged,
        "same_as": record.same_as,
        SIBLING_OF: record.sibling_of,
        "no_gain": ", ".join(gain.what for gain in record.gains if gain.no_gain),
        **{f"{gain.step}_speedup": float(gain.speedup) for gain in record.gains},
        "reason": record.reason[:_MAX_TEXT],
        **{name: candidate_value(record.candidate, name) for name in by_position},
        "resolution_px": record.spec.resolution_px if record.spec else None,
        "macs": record.cost.macs if record.cost else None,
        "params": record.cost.params if record.cost else None,
        "size_bytes": record.size_bytes,
        "float_top1": float(record.training.float_top1) if record.training else None,
        "stable": record.latency.stable if record.latency else None,
    }
    return {name: value for name, value in shown.items() if value is not None and value != ""}


def not_finite(record: TrialRecord) -> str:
    """The objective that no sampler may be told of, in words; empty if both are sound numbers.

    Optuna stores +inf as a complete trial, which poisons every later suggestion.
    """
    values = objectives(record) or ()
    for name, value in zip(("top1", "p50_ms"), values, strict=False):
        if not math.isfinite(value) or (name == "p50_ms" and value <= 0):
            return f"{name} is {value}"
    return ""
