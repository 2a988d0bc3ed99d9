from collections.abc import Callable
from dataclasses import replace

import pytest

from scalesearch.analysis.choice import Wish, choose
from scalesearch.analysis.front import knee, pareto_front
from scalesearch.values.record import MeasuredTrial

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture
def front(make_record: MakeRecord) -> tuple[MeasuredTrial, ...]:
    # Intervals of two points and one per cent: 2 and 3 tie, the others stand alone.
    points = [(0.5, 1.0), (0.70, 2.0), (0.80, 4.0), (0.81, 4.02), (0.90, 16.0)]
    return pareto_front(make_record(trial, top1=top1, p50_ms=p50_ms) for trial, (top1, p50_ms) in enumerate(points))


@pytest.mark.parametrize(
    ("wish", "trial"),
    [
        (Wish(max_latency_ms=4.01), 2),
        (Wish(max_latency_ms=100), 4),
        (Wish(min_score=0.6), 1),
        (Wish(min_score=0.0), 0),
        (Wish(min_score=0.75, max_latency_ms=5), 3),
        (Wish(weights=(1, 0)), 4),
        (Wish(weights=(0, 1)), 0),
    ],
    ids=str,
)
def test_a_bound_gives_its_best_member(front: tuple[MeasuredTrial, ...], wish: Wish, trial: int) -> None:
    assert choose(front, wish).record.trial == trial


def test_equal_weights_and_no_wish_are_the_knee(front: tuple[MeasuredTrial, ...]) -> None:
    # Heights above the chord: accuracy over 0.4 less log2 latency over 4: 0, .25, .25, .2725 (log2 4.02 = 2.007), 0.
    best = knee(front)
    assert best is not None and best.trial == 3
    assert choose(front, Wish()).record == choose(front, Wish(weights=(1, 1))).record == best
    assert choose(front, Wish(weights=(2, 2))).record == best


def test_the_knee_within_bounds_is_that_of_the_members_within_them(front: tuple[MeasuredTrial, ...]) -> None:
    inside = [record for record in front if record.trial < 3]
    expected = knee(inside)
    assert choose(front, Wish(max_latency_ms=4.01, knee=True)).record == expected
    assert "of 3 front members within 4.01 ms" in choose(front, Wish(max_latency_ms=4.01, knee=True)).rule


def test_neighbours_are_those_of_the_whole_front(front: tuple[MeasuredTrial, ...]) -> None:
    choice = choose(front, Wish(max_latency_ms=3))
    assert choice.faster and choice.slower
    assert (choice.faster.trial, choice.record.trial, choice.slower.trial) == (0, 1, 2)
    assert choose(front, Wish(min_score=0)).faster is None
    assert choose(front, Wish(min_score=0.85)).slower is None


def test_ties_are_said(front: tuple[MeasuredTrial, ...]) -> None:
    assert [record.trial for record in choose(front, Wish(max_latency_ms=4.01)).ties] == [3]
    assert choose(front, Wish(min_score=0.6)).ties == ()


def test_a_wish_within_the_error_is_doubted(front: tuple[MeasuredTrial, ...]) -> None:
    # 4.00 ms reads 3.96 to 4.04, 80 % reads 78 to 82.
    assert any("up to 4.04 ms" in doubt for doubt in choose(front, Wish(max_latency_ms=4.01)).doubts)
    assert not any("up to" in doubt for doubt in choose(front, Wish(max_latency_ms=15)).doubts)
    assert any("down to 78.0 %" in doubt for doubt in choose(front, Wish(min_score=0.79)).doubts)
    assert any(doubt.endswith("trial 3") for doubt in choose(front, Wish(max_latency_ms=4.01)).doubts)


def test_an_unsettled_latency_is_doubted(front: tuple[MeasuredTrial, ...]) -> None:
    assert front[1].latency
    shaky = replace(front[1], latency=replace(front[1].latency, stable=False))
    assert any("settle" in doubt for doubt in choose((front[0], shaky, *front[2:]), Wish(max_latency_ms=3)).doubts)
    assert not choose(front, Wish(max_latency_ms=3)).doubts


def test_nothing_within_the_bounds_is_an_error(front: tuple[MeasuredTrial, ...]) -> None:
    with pytest.raises(ValueError, match="within the bounds"):
        choose(front, Wish(max_latency_ms=0.5))
