"""Makes the records of trials whose evaluator returned none: repeated, rejected, failed, or lost with their worker."""

from dataclasses import replace

from scalesearch.errors import CandidateRejected, StageFailed
from scalesearch.execution.worker import Evaluated, Failed, Fatal, Rejected
from scalesearch.search.objectives import not_finite
from scalesearch.values.candidate import Candidate
from scalesearch.values.plan import Plan
from scalesearch.values.record import StageTime, TrialRecord, TrialState
from scalesearch.values.training_length import trunk_steps

Result = Evaluated | Failed | Rejected | Fatal


def repeat(earlier: TrialRecord, trial: int, candidate: Candidate) -> TrialRecord:
    """Return the record of a candidate whose work was done before: the earlier numbers under its own trial number.

    It costs nothing of the budget. A repeat of a failed trial is recorded as failed.
    """
    complete = earlier.state == "complete"
    return replace(
        earlier,
        trial=trial,
        candidate=candidate,
        state="cached" if complete else earlier.state,
        same_as=earlier.trial,
        sibling_of=None,
        other_cut=None,
        charged=False,
        reason="" if complete else f"as trial {earlier.trial}: {earlier.reason}",
        stages=(),
    )


def because_of(record: TrialRecord, other: int | None, *, other_cut: bool) -> TrialRecord:
    """Return the record of a trial that was asked for because of another one, if it was.

    Args:
        record: The record.
        other: Number of that trial; None if there is none.
        other_cut: Whether that one has the same trunk in another cut.
    """
    return replace(record, sibling_of=other, other_cut=None if other is None else other_cut)


def rejected(trial: int, plan: Plan, reason: str) -> TrialRecord:
    """Return the record of a candidate that broke a limit before it cost any training."""
    return _bare(trial, plan, state="rejected", reason=reason)


def unplanned(trial: int, candidate: Candidate, verdict: CandidateRejected | StageFailed) -> TrialRecord:
    """Return the record of a candidate that could not even be planned.

    It has no key, so no other candidate is ever answered from it.
    """
    state: TrialState = "rejected" if isinstance(verdict, CandidateRejected) else "failed"
    return TrialRecord(trial=trial, key="", state=state, candidate=candidate, charged=False, reason=str(verdict))


def given_up_on(trial: int, candidate: Candidate) -> TrialRecord:
    """Return the record of a candidate that a killed run had begun and that no run continued.

    It has no key either, so no other candidate is ever answered from it.
    """
    reason = "not gone on with: the run that began it was killed, and the budget is used up"
    return TrialRecord(trial=trial, key="", state="failed", candidate=candidate, charged=False, reason=reason)


def record_of(result: Result, plan: Plan, stages: tuple[StageTime, ...]) -> TrialRecord:
    """Return the record of a trial that a worker took on, whatever its result.

    Raises:
        TypeError: If the evaluator returned anything but the record of this plan.
    """
    if isinstance(result, Evaluated):
        return _checked(result, plan)
    if isinstance(result, Rejected):
        record = _bare(result.trial, plan, state="rejected", reason=result.reason)
        return replace(record, limits=(*record.limits, *result.limits), stages=stages)
    if isinstance(result, Failed):
        record = _bare(result.trial, plan, state="failed", reason=f"{result.stage}: {result.reason}")
    else:
        reason = f"bug: {result.trace.strip().splitlines()[-1]}"
        record = replace(_bare(result.trial, plan, state="failed", reason=reason), warnings=(result.trace,))
    return replace(record, charged=True, stages=stages)


def gone_on_with(record: TrialRecord, plan: Plan, *, shared_updates: int) -> TrialRecord:
    """Return the record of a trial that a killed run had begun, charged with that run's updates too.

    The killed run may have stored weights, so the worker that continued made fewer updates than the trial cost.
    Of the plan's trunk, other trials have made `shared_updates`, which are not charged to this trial.
    """
    training = record.training
    if record.state == "rejected":  # before any training, in this run as in the one before
        return record
    if training is None:
        return replace(record, charged=True)
    own = training.steps
    if shared_updates:
        own = plan.candidate.recipe.steps - shared_updates  # those with simulated rounding are among the recipe's
    made = max(own, training.new_steps or 0)
    return replace(record, charged=True, training=replace(training, new_steps=made))


def charged_at_most(record: TrialRecord, plan: Plan, *, shared_updates: int, stored: bool) -> TrialRecord:
    """Return the record, charged no more than its trial can have trained, if it failed and nobody knows how far it got.

    Args:
        record: Of any state; only such a failed one is changed.
        plan: Its plan.
        shared_updates: Updates of its trunk that other trials have made.
        stored: Whether another trial had trained its weights before.
    """
    if record.state != "failed" or record.training is not None:
        return record
    most = 0 if stored else max(0, plan.candidate.recipe.steps - shared_updates)
    return replace(record, charged=record.charged and most > 0, most_updates=most)


def paid_for_trunk(record: TrialRecord) -> bool:
    """Tell whether a trial is charged for updates before its branch; if its updates are not known, it may be."""
    training, recipe = record.training, record.candidate.recipe
    made = training.new_steps if training else record.most_updates
    branch = (training.steps if training else recipe.steps) - trunk_steps(recipe)
    return record.charged and (made is None or made > branch)


def _bare(trial: int, plan: Plan, *, state: TrialState, reason: str) -> TrialRecord:
    return TrialRecord(
        trial=trial,
        key=plan.key,
        state=state,
        candidate=plan.candidate,
        charged=False,
        reason=reason,
        spec=plan.spec,
        cut_from=plan.cut_from,
        cost=plan.cost,
        dense_macs=plan.dense_cost.macs,
        full_updates=plan.full_updates,
        limits=plan.limits,
    )


def _checked(result: Evaluated, plan: Plan) -> TrialRecord:
    record = result.record
    whole = isinstance(record, TrialRecord) and (
        record.state == "failed"
        or (record.state == "complete" and record.quality is not None and record.latency is not None)
    )
    if not whole or (record.trial, record.key) != (result.trial, plan.key):
        msg = f"expected the complete or failed record of trial {result.trial}, the evaluator gave {record!r:.300}"
        raise TypeError(msg)
    problem = not_finite(record)
    if problem:
        record = replace(record, state="failed", reason=f"quality: {problem}")
    # A failed trial's numbers must not be taken for a point of the front.
    return record if record.state == "complete" else record.without_measurement()


def error_of(report: Fatal) -> Exception:
    """Return the error that a Fatal report stops the run with."""
    return report.error or RuntimeError(f"a bug stopped the run (trial {report.trial}):\n{report.trace}")
