from collections.abc import Callable
from dataclasses import replace

import pytest

from scalesearch.values.quality import ClassDetail
from scalesearch.values.record import MeasuredTrial
from scalesearch.views import class_data as classes
from scalesearch.views.class_data import MOST_POINTS, MOST_ROWS, class_data, thin

MakeRecord = Callable[..., MeasuredTrial]


def _with_curves(record: MeasuredTrial, points: int) -> MeasuredTrial:
    assert record.quality is not None
    curve = tuple((place / (points - 1), 1 - place / (points - 1) / 2) for place in range(points))
    assert isinstance(record.quality.detail, ClassDetail)
    curved = tuple(replace(each, curve=curve) for each in record.quality.classes)
    quality = replace(record.quality, detail=replace(record.quality.detail, classes=curved))
    return replace(record, quality=quality)


def test_a_thinned_curve_keeps_its_ends_and_is_flat_per_mille() -> None:
    curve = tuple((place / 100, 1 - place / 200) for place in range(101))
    thinned = thin(curve, 11)
    assert len(thinned) == 22
    assert thinned[:2] == [0, 1000]
    assert thinned[-2:] == [1000, 500]
    assert thin(curve[:3], 11) == [0, 1000, 10, 995, 20, 990]


def test_numbers_are_those_of_the_record(make_record: MakeRecord) -> None:
    record = make_record(3, top1=0.8)
    data = class_data([record], record)
    assert data["names"] == ["stop", "yield", "priority", "speed 30"]
    assert data["members"][0]["recall"] == [800, 770, 740, 710]
    assert data["members"][0]["support"] == [100] * 4
    assert data["members"][data["first"]]["trial"] == 3


@pytest.mark.slow
def test_too_many_rows_leave_members_out_but_never_ends_or_knee(make_record: MakeRecord) -> None:
    names = tuple(f"c{place}" for place in range(MOST_ROWS // 5))
    front = [make_record(trial, top1=0.5 + trial / 100, p50_ms=1 + trial, classes=names) for trial in range(40)]
    data = class_data(front, front[17])
    shown = [member["trial"] for member in data["members"]]
    assert len(shown) == 5
    assert data["left_out"] == 35
    assert {0, 17, 39} <= set(shown)
    assert shown[data["first"]] == 17


def test_points_stay_within_their_budget_and_go_to_the_weakest(make_record: MakeRecord) -> None:
    names = tuple(f"c{place}" for place in range(2000))
    members = [_with_curves(make_record(trial, classes=names), 50) for trial in range(10)]
    data = class_data(members, members[0])
    drawn = [curve for member in data["members"] for curve in member["curves"] if curve]
    assert sum(len(curve) // 2 for curve in drawn) <= MOST_POINTS
    assert len(drawn) < 2000 * 10
    assert min(len(curve) // 2 for curve in drawn) >= classes._COARSEST


def test_no_curve_is_spent_on_a_class_without_images(make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "MOST_POINTS", 6)  # room for one curve
    record = _with_curves(make_record(0), 50)
    assert isinstance(record.quality.detail, ClassDetail)
    first, *others = record.quality.classes
    unseen = replace(first, support=0, average_precision=0.0)
    quality = replace(record.quality, detail=replace(record.quality.detail, classes=(unseen, *others)))
    curves = class_data([replace(record, quality=quality)], None)["members"][0]["curves"]
    assert curves[0] is None
    assert sum(curve is not None for curve in curves) == 1


def test_no_front_is_no_data() -> None:
    assert class_data([], None)["members"] == []
