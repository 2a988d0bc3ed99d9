from collections.abc import Callable
from dataclasses import replace

import pytest

from scalesearch.analysis.importance import AxisImportance
from scalesearch.values.record import LossCurve, MeasuredTrial, StageTime
from scalesearch.views.figures import (
    hypervolume_figure,
    importance_figure,
    loss_figure,
    paid_figure,
    ticks,
)
from scalesearch.views.front_figure import front_figure

MakeRecord = Callable[..., MeasuredTrial]


def _trace(figure: dict[str, object], name: str) -> dict[str, list[object]]:
    data = figure["data"]
    assert isinstance(data, list)
    return next(trace for trace in data if trace["name"] == name)


def test_ties_join_exactly_the_members_that_cannot_be_told_apart(make_record: MakeRecord) -> None:
    # Intervals reach 2 points and 1 %: 0 and 1 overlap in both, 2 with none.
    records = [
        make_record(0, top1=0.80, p50_ms=1.0),
        make_record(1, top1=0.81, p50_ms=1.01),
        make_record(2, top1=0.95, p50_ms=3.0),
    ]
    tie = _trace(front_figure(records), "tie")
    assert tie["x"] == [1.0, 1.01, None]
    assert tie["y"] == [80.0, 81.0, None]


def test_members_have_their_intervals_and_others_none(make_record: MakeRecord) -> None:
    records = [make_record(0, top1=0.8), make_record(1, top1=0.7, p50_ms=2.0)]
    figure = front_figure(records, base=records[1], knee=records[0])
    member = _trace(figure, "fp32")
    assert member["text"] == ["0"]
    assert member["error_y"]["array"] == [2.0]  # type: ignore[call-overload]
    assert "error_y" not in _trace(figure, "fp32, dominated")
    assert _trace(figure, "base network")["x"] == [2.0]
    assert figure["layout"]["title"]["text"] == "Feasible front, knee: trial 0"


def test_numbers_of_close_members_stand_on_two_sides(make_record: MakeRecord) -> None:
    # Two pairs that are close in both, the second of them in two traces; and one member far from all.
    close = [make_record(0, top1=0.80, p50_ms=1.0), make_record(1, top1=0.801, p50_ms=1.001)]
    far = [make_record(2, top1=0.9, p50_ms=10.0), make_record(3, top1=0.95, p50_ms=100.0)]
    other = make_record(4, top1=0.951, p50_ms=101.0, precision="int8")
    figure = front_figure([*close, *far, other])
    assert _trace(figure, "fp32")["textposition"] == ["bottom right", "top left", "bottom right", "bottom right"]
    assert _trace(figure, "int8")["textposition"] == ["top left"]


def test_a_front_by_chance_of_one_trial_is_still_seen(make_record: MakeRecord) -> None:
    records = [make_record(0, top1=0.8), make_record(1, top1=0.7, p50_ms=2.0)]
    chance = _trace(front_figure(records, chance=records[1:]), "drawn by chance")
    assert [chance["x"], chance["y"]] == [[2.0], [70.0]]
    assert "markers" in chance["mode"]


def test_the_latency_limit_is_drawn_where_the_records_say(make_record: MakeRecord) -> None:
    shapes = front_figure([make_record(0, p50_ms=2.0, excess=-0.5)])["layout"]["shapes"]
    assert [shape["x0"] for shape in shapes] == [4.0]


def test_what_paid_has_a_point_for_each_gain_and_escapes_names(make_record: MakeRecord) -> None:
    record = make_record(0, precision="int8")
    odd = replace(record, trial=1, gains=(replace(record.gains[0], what="<b>x"),))
    figure = paid_figure([record, odd])
    assert {trace["name"] for trace in figure["data"]} == {"channels 25 %, dense", "int8, dense", "&lt;b&gt;x, dense"}
    assert _trace(figure, "int8, dense")["x"] == [0.95]
    assert _trace(figure, "int8, dense")["y"] == [-1.0]


def test_the_random_start_is_shaded_only_where_something_follows(make_record: MakeRecord) -> None:
    records = [make_record(trial, top1=0.5 + trial / 100) for trial in range(12)]
    assert hypervolume_figure(records, chance_until=10)["layout"]["shapes"][0]["x1"] == 10
    assert hypervolume_figure(records, chance_until=float("inf"))["layout"]["shapes"] == []
    assert hypervolume_figure([])["data"] == []


def test_hypervolume_goes_by_trials_or_by_the_minutes_that_workers_spent(make_record: MakeRecord) -> None:
    records = [
        replace(make_record(trial, top1=0.5 + trial / 100), stages=(StageTime(stage="train", seconds=60.0 * trial),))
        for trial in range(1, 5)
    ]
    figure = hypervolume_figure(records, chance_until=3)
    assert figure["data"][0]["x"] == [1, 2, 3, 4]
    trials, minutes = figure["layout"]["updatemenus"][0]["buttons"]
    assert trials["args"] == [{"x": [[1, 2, 3, 4]]}, {"xaxis.title.text": "trial", "shapes[0].x1": 3}]
    assert minutes["args"][0] == {"x": [[1.0, 3.0, 6.0, 10.0]]}
    assert minutes["args"][1]["shapes[0].x1"] == 3.0  # trials 1 and 2, of one and two minutes
    timeless = [replace(record, stages=()) for record in records]
    assert "updatemenus" not in hypervolume_figure(timeless)["layout"]


def test_importance_is_in_percent_and_the_weightiest_axis_on_top() -> None:
    figure = importance_figure(
        [AxisImportance(axis="a", score=0.75, p50_ms=0.5), AxisImportance(axis="b", score=0.25, p50_ms=0.5)], "top1"
    )
    assert _trace(figure, "accuracy")["y"] == ["b", "a"]
    assert _trace(figure, "accuracy")["x"] == [25.0, 75.0]


def test_losses_stand_in_the_middle_of_their_stretch_and_break_where_pruning_came(make_record: MakeRecord) -> None:
    record = make_record(0)
    assert record.training
    curves = (LossCurve(steps=30, losses=(3.0, 2.0, 1.0)), LossCurve(steps=10, losses=(1.5,)))
    record = replace(record, training=replace(record.training, loss_curves=curves))
    trace = _trace(loss_figure([record, make_record(1)], record), "trial 0")
    assert trace["x"] == [5.0, 15.0, 25.0, None, 35.0]
    assert trace["y"] == [3.0, 2.0, 1.0, None, 1.5]
    assert loss_figure([make_record(1)], None)["data"] == []


@pytest.mark.parametrize(
    "span", [(0.048, 0.083), (0.02, 0.09), (0.5, 300.0), (0.131, 0.135), (0.1961, 0.2043), (9.7, 10.4), (1.3e4, 1.7e4)]
)
def test_ticks_cover_the_latencies(span: tuple[float, float], make_record: MakeRecord) -> None:
    values = ticks([make_record(place, p50_ms=p50_ms) for place, p50_ms in enumerate(span)])["tickvals"]
    assert min(values) <= span[0]
    assert max(values) >= span[1] / 2
    assert len([value for value in values if span[0] <= value <= span[1]]) >= 3


def test_ticks_of_near_latencies_are_few_round_and_apart(make_record: MakeRecord) -> None:
    made = ticks([make_record(0, p50_ms=0.131), make_record(1, p50_ms=0.135)])
    near = [words for words in made["ticktext"] if 0.13 < float(words) < 0.14]
    assert near == ["0.131", "0.132", "0.133", "0.134", "0.135"]
    assert made["tickvals"] == [float(words) for words in made["ticktext"]]
    same = ticks([make_record(0, p50_ms=1.0)])
    assert 1.0 in same["tickvals"]


def test_ticks_go_by_all_that_the_axis_shows(make_record: MakeRecord) -> None:
    near = [make_record(0, p50_ms=0.131), make_record(1, p50_ms=0.135)]
    far = ticks(near, also_ms=[0.27])["ticktext"]
    assert "0.132" not in far and {"0.15", "0.2", "0.25"} <= set(far)
    # The limit of latency is twice the first of them.
    assert front_figure(near)["layout"]["xaxis"]["ticktext"] == ticks(near, also_ms=[0.262])["ticktext"] == far
    free = [replace(record, limits=()) for record in near]
    assert "0.132" in front_figure(free)["layout"]["xaxis"]["ticktext"]


def test_short_trainings_are_marked_and_are_no_members(make_record: MakeRecord) -> None:
    best = make_record(0, top1=0.9, p50_ms=1.0)
    whole = replace(make_record(1, top1=0.5, p50_ms=2.0), full_updates=best.candidate.recipe.steps)
    figure = front_figure([replace(best, full_updates=2 * best.candidate.recipe.steps), whole])
    assert _trace(figure, "trained in part")["x"] == [1.0]
    assert _trace(figure, "front")["x"] == [2.0]
