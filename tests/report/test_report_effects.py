import statistics
from collections.abc import Callable
from dataclasses import replace

import pytest

from scalesearch.report.effects import axis_levels, effects_table
from scalesearch.values.candidate import Recipe, Scaling
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.space import NamedAxis, Range

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture
def records(make_record: MakeRecord) -> list[MeasuredTrial]:
    made = []
    for trial in range(40):
        wide = trial % 2 == 0
        record = make_record(trial, top1=(0.7 if wide else 0.5) + trial / 1000, p50_ms=2.0 if wide else 1.0)
        scaling = Scaling(width=1.0 if wide else 0.5)
        recipe = Recipe(learning_rate=0.001 * 10 ** ((trial + 0.5) / 20))
        made.append(replace(record, candidate=replace(record.candidate, scaling=scaling, recipe=recipe)))
    return made


def test_levels_hold_the_quartiles_of_their_trials(records: list[MeasuredTrial], session: Session) -> None:
    levels = dict(axis_levels(records, session.space))
    narrow, wide = levels["scaling.width"]
    assert (narrow.value, wide.value) == ("0.5", "1")
    assert (narrow.trials, wide.trials) == (20, 20)
    assert narrow.score.middle == pytest.approx(statistics.median(0.5 + trial / 1000 for trial in range(1, 40, 2)))
    assert narrow.p50_ms.low == narrow.p50_ms.high == 1.0
    assert wide.p50_ms.middle == 2.0


def test_a_range_is_shown_in_quarters_of_its_own_scale(records: list[MeasuredTrial], session: Session) -> None:
    levels = dict(axis_levels(records, session.space))["training.learning_rate"]
    assert [level.trials for level in levels] == [10, 10, 10, 10]
    assert levels[0].value == "0.001 to 0.00316"


def test_a_range_is_as_wide_as_values_given_by_hand(records: list[MeasuredTrial], session: Session) -> None:
    width = NamedAxis(name="scaling.width", axis=Range(low=0.6, high=0.9))
    levels = dict(axis_levels(records, session.space.with_axis(width)))["scaling.width"]
    assert [(level.value, level.trials) for level in levels] == [("0.5 to 0.625", 20), ("0.875 to 1", 20)]
    # A range by ratios that a 0 was given for has no logarithm any more.
    decay = NamedAxis(name="training.weight_decay", axis=Range(low=1e-5, high=1e-3, log=True))
    given = [
        replace(each, candidate=replace(each.candidate, recipe=replace(each.candidate.recipe, weight_decay=value)))
        for each, value in zip(records, (0.0, 1e-3, 1e-4, 4e-3), strict=False)
    ]
    levels = dict(axis_levels(given, replace(session.space, axes=(decay,))))["training.weight_decay"]
    assert [level.value for level in levels] == ["0 to 0.001", "0.001 to 0.002", "0.003 to 0.004"]


def test_an_axis_with_one_value_is_left_out_and_repeats_do_not_count(
    records: list[MeasuredTrial], session: Session
) -> None:
    levels = dict(axis_levels([*records, replace(records[0], trial=99, same_as=0)], session.space))
    assert "quantization.precision" not in levels
    assert sum(level.trials for level in levels["scaling.width"]) == 40


def test_the_table_escapes_and_draws_every_level(records: list[MeasuredTrial], session: Session) -> None:
    levels = axis_levels(records, session.space)
    made = effects_table([("<b>", levels[0][1]), *levels], "top1", "end-to-end")
    assert "end-to-end (log scale)" in made and "p50" not in made
    assert "<b>" not in made
    assert made.count("<svg") == 2 * (2 + 2 + 4)


def test_short_trainings_are_left_out(records: list[MeasuredTrial], session: Session) -> None:
    short = [replace(record, trial=100 + record.trial, full_updates=10_000) for record in records]
    assert axis_levels([*records, *short], session.space) == axis_levels(records, session.space)
