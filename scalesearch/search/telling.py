"""Tell Optuna the result of a trial: constraints, readable attributes, values and state."""

from dataclasses import fields

import optuna
from optuna.trial import TrialState

from scalesearch.search.listener import StudyListener
from scalesearch.search.objectives import objectives
from scalesearch.search.siblings import SIBLING_OF
from scalesearch.spaces.asking import is_asked_by_position
from scalesearch.spaces.axes import Value
from scalesearch.spaces.suggest import candidate_value
from scalesearch.values.quality import DEFAULT_METRIC
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


def tell(
    study: optuna.Study, trial: optuna.Trial, record: TrialRecord, space: SearchSpace, listener: StudyListener
) -> None:
    """Finish the trial in the study as the record says; it is safe to repeat this after a kill in the middle."""
    told = study.get_trials(deepcopy=False)[trial.number].constraints
    for use in constraints(record, space):
        if use.limit not in told:
            trial.set_constraint(use.limit, use.excess)
    for name, value in attributes(record, space).items():
        trial.set_user_attr(name, value)
    listener.trial_recorded(study, trial, record)
    if record.short and objectives(record):  # as a point, it would be compared with those of full length
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, values=objectives(record), state=_STATES[record.state])


def constraints(record: TrialRecord, space: SearchSpace) -> tuple[LimitUse, ...]:
    """Return the use of every limit of the space: the same limits in the same order for every record.

    The GP sampler matches constraints by their place in the list. Depending on the storage, that is their order of
    insertion or the order of their names; so they are inserted in the order of their names. A limit that the trial
    never reached counts as kept: 0.
    """
    limits = space.limits
    known = {use.limit: use.excess for use in record.limits}
    names = sorted(field.name for field in fields(limits) if getattr(limits, field.name) is not None)
    return tuple(LimitUse(limit=name, excess=float(known.get(name, 0.0))) for name in names)


def attributes(record: TrialRecord, space: SearchSpace) -> dict[str, Value]:
    """Return what the dashboard shows besides objectives and parameters.

    The values are Python scalars only, since SQLite does not accept numpy ones. Axes that are asked for by position
    (`scaling.width.index`) show their value here, as `scaling.width`.
    """
    metric = record.quality.metric if record.quality else DEFAULT_METRIC
    by_position = [named.name for named in space.axes if is_asked_by_position(named)]
    shown: dict[str, Value | None] = {
        "state": record.state,
        "feasible": record.feasible,
        "charged": record.charged,
        "charge": record.charge,
        "same_as": record.same_as,
        SIBLING_OF: record.sibling_of,
        "no_gain": ", ".join(gain.what for gain in record.gains if gain.no_gain),
        **{f"{gain.step}_speedup": float(gain.speedup) for gain in record.gains},
        "reason": record.reason[:_MAX_TEXT],
        **{name: candidate_value(record.candidate, name) for name in by_position},
        **_of_short(record),
        "resolution_px": record.spec.input_size.cell if record.spec else None,
        "macs": record.cost.macs if record.cost else None,
        "params": record.cost.params if record.cost else None,
        "size_bytes": record.size_bytes,
        f"float_{metric}": float(record.training.float_score) if record.training else None,
        "stable": record.latency.stable if record.latency else None,
    }
    return {name: value for name, value in shown.items() if value is not None and value != ""}


def _of_short(record: TrialRecord) -> dict[str, Value | None]:
    """Return score, latency and length of a trial that was trained in part: Optuna is not told them as a point."""
    if not record.short or record.quality is None or record.latency is None:
        return {}
    return {
        "updates": f"{record.candidate.recipe.steps} of {record.full_updates}",
        f"brief_{record.quality.metric}": float(record.quality.score),
        record.latency.name: float(record.latency.p50_ms),
    }
