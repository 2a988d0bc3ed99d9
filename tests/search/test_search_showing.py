"""What watchers are told of a front that stops growing."""

import math

import pytest

from scalesearch.analysis.front import Point, hypervolume
from scalesearch.search.showing import PLATEAU_CANDIDATES, PLATEAU_GROWTH, PlateauWatch


def front_of(volume: float, ms: float = 1.0) -> list[Point]:
    """Return a front of that hypervolume: of one point."""
    return [(volume / math.log(1000 / ms), ms)]


def test_a_plateau_is_told_once_until_the_front_has_grown_again() -> None:
    watch = PlateauWatch()
    assert hypervolume(front_of(5.0)) == pytest.approx(5.0)
    assert not any(watch.after(front_of(5.0)) for _ in range(PLATEAU_CANDIDATES))
    told = watch.after(front_of(5.0 * (1 + PLATEAU_GROWTH / 2)))
    assert told and told.candidates == PLATEAU_CANDIDATES and abs(told.growth - PLATEAU_GROWTH / 2) < 1e-12
    assert not watch.after(front_of(5.0 * (1 + PLATEAU_GROWTH / 2)))
    assert not any(watch.after(front_of(6.0)) for _ in range(PLATEAU_CANDIDATES))
    assert watch.after(front_of(6.0))


def test_a_front_that_grows_is_on_no_plateau() -> None:
    watch = PlateauWatch()
    fronts = (front_of(5.0 * (1 + PLATEAU_GROWTH / 10) ** number) for number in range(5 * PLATEAU_CANDIDATES))
    assert not any(map(watch.after, fronts))


def test_studies_without_a_front_are_on_no_plateau() -> None:
    watch = PlateauWatch()
    assert not any(watch.after([]) for _ in range(3 * PLATEAU_CANDIDATES))


def test_a_front_slower_than_a_second_comes_to_a_plateau_too() -> None:
    watch, slow = PlateauWatch(), [(0.5, 4000.0)]
    assert hypervolume(slow) == 0
    assert not any(watch.after(slow) for _ in range(PLATEAU_CANDIDATES))
    assert watch.after(slow)
    assert not watch.after([*slow, (0.6, 9000.0)]), "it grew"
