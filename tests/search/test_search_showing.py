"""What watchers are told of a front that stops growing."""

from scalesearch.search.showing import PLATEAU_CANDIDATES, PLATEAU_GROWTH, PlateauWatch


def test_a_plateau_is_told_once_until_the_front_has_grown_again() -> None:
    watch = PlateauWatch()
    assert not any(watch.after(8.0) for _ in range(PLATEAU_CANDIDATES))
    told = watch.after(8.0 * (1 + PLATEAU_GROWTH / 2))
    assert told and told.candidates == PLATEAU_CANDIDATES and abs(told.growth - PLATEAU_GROWTH / 2) < 1e-12
    assert not watch.after(8.0 * (1 + PLATEAU_GROWTH / 2))
    assert not any(watch.after(9.0) for _ in range(PLATEAU_CANDIDATES))
    assert watch.after(9.0)


def test_a_front_that_grows_is_on_no_plateau() -> None:
    watch = PlateauWatch()
    assert not any(watch.after(8.0 * (1 + PLATEAU_GROWTH / 10) ** number) for number in range(5 * PLATEAU_CANDIDATES))


def test_studies_without_a_front_are_on_no_plateau() -> None:
    watch = PlateauWatch()
    assert not any(watch.after(0.0) for _ in range(3 * PLATEAU_CANDIDATES))
