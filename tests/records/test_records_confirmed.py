"""What a confirmed run says of its trial."""

from collections.abc import Callable
from dataclasses import replace

from scalesearch.records.confirmed import UNKNOWN_COST, as_confirmed
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import Cost, MeasuredTrial
from scalesearch.values.training_length import usual_full_length


def run_of(record: MeasuredTrial) -> ConfirmedRun:
    return ConfirmedRun(
        trial=1, seed=7, steps=100, train_s=1.0, float_score=0.5, validation=record.quality, test=record.quality,
        latency=record.latency, size_bytes=1, onnx_sha256="0", network_sha256="other", cost=Cost(macs=5, params=3),
    )  # fmt: skip


def test_the_cost_is_that_of_the_confirmed_network(make_record: Callable[..., MeasuredTrial]) -> None:
    """Its shape may follow its own weights; a run of an earlier version does not tell what that costs."""
    record = make_record(1)
    run = run_of(record)
    assert as_confirmed(record, run).cost == Cost(macs=5, params=3)
    assert as_confirmed(record, replace(run, cost=None)).cost == UNKNOWN_COST
    same = replace(run, cost=None, network_sha256=record.network_sha256 or "")
    assert as_confirmed(record, same).cost == record.cost


def test_a_confirmed_trial_is_no_short_one_in_a_study_that_was_made_longer(
    make_record: Callable[..., MeasuredTrial],
) -> None:
    record = make_record(1)
    steps = record.candidate.recipe.steps
    member = record.in_study_of(steps)
    for longer in (2, 4):
        short = record.in_study_of(longer * steps)
        run = replace(run_of(short), steps=usual_full_length(short.candidate.recipe, full_updates=0))
        assert not short.feasible and as_confirmed(short, run).feasible
    assert as_confirmed(member, run_of(member)).full_updates == steps
