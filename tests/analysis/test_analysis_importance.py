from collections.abc import Callable
from dataclasses import replace

import pytest

from scalesearch.analysis.importance import FEWEST_TRIALS, axis_importance
from scalesearch.values.candidate import Quantization, Scaling
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.space import NamedAxis, Range

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture
def records(make_record: MakeRecord) -> list[MeasuredTrial]:
    """Width alone decides accuracy (a tenth of the trials is wide and good), precision alone latency."""
    made = []
    for trial in range(60):
        wide, fast = trial % 10 == 0, trial % 7 == 0
        record = make_record(trial, top1=0.9 if wide else 0.5, p50_ms=0.5 if fast else 2.0)
        candidate = replace(
            record.candidate,
            scaling=Scaling(width=1.0 if wide else 0.5),
            quantization=Quantization(precision="int8" if fast else "fp32"),
        )
        made.append(replace(record, candidate=candidate))
    return made


def test_importance_finds_what_decides_each_objective(records: list[MeasuredTrial], session: Session) -> None:
    found = {entry.axis: entry for entry in axis_importance(records, session.space)}
    assert set(found) == {"scaling.width", "quantization.precision"}
    assert found["scaling.width"].score > 0.9
    assert found["quantization.precision"].p50_ms > 0.9
    for name in ("score", "p50_ms"):
        assert sum(getattr(entry, name) for entry in found.values()) == pytest.approx(1.0)


def test_accuracy_is_negated_so_that_the_best_are_explained(make_record: MakeRecord, session: Session) -> None:
    """Few bad narrow trials among many good wide ones: PED-ANOVA of plain accuracy would name the width."""
    made = []
    for trial in range(60):
        record = make_record(trial, top1=0.1 if trial < 6 else 0.5 + (0.4 if trial % 9 == 0 else 0.0), p50_ms=1 + trial)
        fast = trial % 9 == 0
        candidate = replace(
            record.candidate,
            scaling=Scaling(width=0.5 if trial < 6 else 1.0),
            quantization=Quantization(precision="int8" if fast else "fp32"),
        )
        made.append(replace(record, candidate=candidate))
    found = {entry.axis: entry for entry in axis_importance(made, session.space)}
    assert found["quantization.precision"].score > found["scaling.width"].score


def test_an_objective_that_hardly_differs_has_no_importance(records: list[MeasuredTrial], session: Session) -> None:
    same = [replace(record, latency=records[0].latency) for record in records]
    found = axis_importance(same, session.space)
    assert {entry.p50_ms for entry in found} == {0.0}
    assert sum(entry.score for entry in found) == pytest.approx(1.0)


@pytest.mark.parametrize("log", [False, True])
def test_values_given_by_hand_may_lie_outside_a_range(
    records: list[MeasuredTrial], session: Session, *, log: bool
) -> None:
    width = NamedAxis(name="scaling.width", axis=Range(low=0.6, high=0.9, log=log))
    found = {entry.axis: entry for entry in axis_importance(records, session.space.with_axis(width))}
    assert found["scaling.width"].score > 0.9


def test_too_few_trials_have_no_importance(records: list[MeasuredTrial], session: Session) -> None:
    assert axis_importance(records[: FEWEST_TRIALS - 1], session.space) == ()
    repeats = [replace(record, same_as=0) for record in records[1:]]
    assert axis_importance([records[0], *repeats], session.space) == ()
