"""Which axes decided score and latency: PED-ANOVA over the records of a study."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scalesearch.analysis.front import point
from scalesearch.spaces.axes import CONDITIONS, Value
from scalesearch.spaces.suggest import candidate_value
from scalesearch.values.record import TrialRecord
from scalesearch.values.space import NamedAxis, Range, SearchSpace

if TYPE_CHECKING:
    import optuna

FEWEST_TRIALS = 20
"""With fewer trials, the best tenth that PED-ANOVA compares with all trials is a single trial or two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisImportance:
    """For each objective, how much of the difference between the best trials and all trials lies on one axis.

    The values of all axes add up to 1. All are 0 where the trials hardly differ in that objective.
    """

    axis: str
    score: float
    p50_ms: float


def axis_importance(records: Iterable[TrialRecord], space: SearchSpace) -> tuple[AxisImportance, ...]:
    """Return the importance of every axis that varied, the most important first.

    These are the axes that every candidate is asked for and that took two values or more. The result is empty with
    fewer than `FEWEST_TRIALS` measured trials. PED-ANOVA explains low values, so the score goes in negated. Reference:
    Watanabe et al., "PED-ANOVA", IJCAI 2023.
    """
    new = (record for record in records if record.same_as is None and not record.short)
    measured = [record for record in new if record.quality and record.latency]
    axes = varied_axes(measured, space)
    if len(measured) < FEWEST_TRIALS or not axes:
        return ()
    import optuna  # takes 0.4 s, so it is imported only where something is computed

    distributions = {named.name: _distribution(named, measured) for named in axes}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(directions=["maximize", "minimize"])
        study.add_trials([_trial(record, distributions) for record in measured])
        score = _shares(study, sign=-1, objective=0)
        p50_ms = _shares(study, sign=1, objective=1)
    finally:
        optuna.logging.set_verbosity(verbosity)
    found = [
        AxisImportance(axis=named.name, score=score.get(named.name, 0.0), p50_ms=p50_ms.get(named.name, 0.0))
        for named in axes
    ]
    return tuple(sorted(found, key=lambda entry: (-max(entry.score, entry.p50_ms), entry.axis)))


def varied_axes(records: Iterable[TrialRecord], space: SearchSpace) -> tuple[NamedAxis, ...]:
    """Return the axes of the space that every candidate is asked for and that took two values or more in the records.

    Conditional axes (a clip percentile means nothing for fp32) have no value in most trials, and are left out.
    """
    kept = list(records)
    return tuple(
        named
        for named in space.axes
        if named.name not in CONDITIONS and len({candidate_value(record.candidate, named.name) for record in kept}) > 1
    )


def as_wide_as(axis: Range, values: Iterable[float]) -> Range:
    """Return the range, widened to hold the values: those of a candidate given by hand need not lie on its axis.

    It goes by logarithms only as long as all are above 0.
    """
    every = [axis.low, axis.high, *values]
    return replace(axis, low=min(every), high=max(every), log=axis.log and min(every) > 0)


def _distribution(named: NamedAxis, records: Iterable[TrialRecord]) -> "optuna.distributions.BaseDistribution":
    import optuna

    values: set[Value] = {candidate_value(record.candidate, named.name) for record in records}
    if isinstance(named.axis, Range):
        axis = as_wide_as(named.axis, map(float, values))
        return optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)
    return optuna.distributions.CategoricalDistribution(sorted(values, key=str))


def _trial(
    record: TrialRecord, distributions: "dict[str, optuna.distributions.BaseDistribution]"
) -> "optuna.trial.FrozenTrial":
    import optuna

    score, p50_ms = point(record)
    params = {name: candidate_value(record.candidate, name) for name in distributions}
    return optuna.trial.create_trial(params=params, distributions=distributions, values=[score, p50_ms])


def _shares(study: "optuna.Study", *, sign: int, objective: int) -> dict[str, float]:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="PedAnovaImportanceEvaluator computes", category=UserWarning)
        # Where the best trials are as good as all trials, they are not a group of their own, and the shares would be
        # noise.
        warnings.filterwarnings("error", message="Target and region quantiles select the same", category=UserWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        try:
            return optuna.importance.get_param_importances(
                study, evaluator=evaluator, target=lambda trial: sign * trial.values[objective], normalize=True
            )
        except UserWarning:
            return {}
