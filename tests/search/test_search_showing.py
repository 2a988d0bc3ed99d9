"""What watchers are told of a trial, and of a front that stops growing."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from scalesearch.analysis.front import Point, hypervolume, pareto_front
from scalesearch.records.store import RecordStore
from scalesearch.search.events import Event, Plateau, TrialFinished
from scalesearch.search.ledger import Ledger
from scalesearch.search.listener import NoListener
from scalesearch.search.showing import (
    PLATEAU_CANDIDATES,
    PLATEAU_GROWTH,
    PLATEAU_IN_FULL,
    PlateauWatch,
    Showing,
    Watchers,
)
from scalesearch.values.candidate import Recipe
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.settings import RunSettings


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


def test_trainings_in_part_count_for_a_plateau_once_there_is_a_front() -> None:
    watch = PlateauWatch()
    assert not any(watch.after([], short=True) for _ in range(PLATEAU_CANDIDATES)), "no member stands"
    lengths = [place % 4 != 0 for place in range(1, PLATEAU_CANDIDATES + 1)]
    assert not watch.after(front_of(5.0))
    assert not any(watch.after(front_of(5.0), short=short) for short in lengths[:-1])
    told = watch.after(front_of(5.0), short=lengths[-1])
    assert told and (told.candidates, told.in_part, told.growth) == (PLATEAU_CANDIDATES, sum(lengths), 0)


def test_trainings_in_part_alone_tell_nothing_of_a_front_that_they_cannot_enlarge() -> None:
    watch = PlateauWatch()
    watch.after(front_of(5.0))
    assert not any(watch.after(front_of(5.0), short=True) for _ in range(2 * PLATEAU_CANDIDATES))
    assert not any(watch.after(front_of(5.0)) for _ in range(PLATEAU_IN_FULL - 1))
    told = watch.after(front_of(5.0))
    assert told and told.in_part == PLATEAU_CANDIDATES - PLATEAU_IN_FULL
    assert not any(watch.after(front_of(5.0), short=True) for _ in range(2 * PLATEAU_CANDIDATES)), "it is known"


def test_a_search_of_unlike_lengths_is_told_its_plateau(
    make_record: Callable[..., MeasuredTrial], tmp_path: Path
) -> None:
    told, ledger = list[Event](), Ledger(tmp_path, budget=99)
    watchers = Watchers(on_event=lambda event: told.append(event) if isinstance(event, Plateau) else None)
    showing = Showing(watchers, optuna.create_study(), ledger, RunSettings())
    for trial in range(PLATEAU_CANDIDATES + 1):
        steps = 240 if trial % 3 else 960
        plain = make_record(trial, top1=0.5)
        candidate = replace(plain.candidate, recipe=Recipe(steps=steps))
        record = replace(plain, candidate=candidate, full_updates=960)
        ledger.records[trial] = record
        showing.finished(record, pareto_front(ledger.records.values()))
        assert bool(told) == (trial == PLATEAU_CANDIDATES), "the first member stands after the first candidate"
    assert told == [Plateau(candidates=PLATEAU_CANDIDATES, in_part=14, growth=0.0)]


def test_a_front_slower_than_a_second_comes_to_a_plateau_too() -> None:
    watch, slow = PlateauWatch(), [(0.5, 4000.0)]
    assert hypervolume(slow) == 0
    assert not any(watch.after(slow) for _ in range(PLATEAU_CANDIDATES))
    assert watch.after(slow)
    assert not watch.after([*slow, (0.6, 9000.0)]), "it grew"


def test_the_hypervolume_of_slow_networks_is_told(make_record: Callable[..., MeasuredTrial], tmp_path: Path) -> None:
    records = [make_record(0, top1=0.5, p50_ms=1500.0), make_record(1, top1=0.9, p50_ms=3000.0)]
    for record in records:
        RecordStore(tmp_path).save(record)
    told = list[Event]()
    watchers = Watchers(on_event=told.append)
    Showing(watchers, optuna.create_study(), Ledger(tmp_path, budget=8), RunSettings(), metric="miou").finished(
        records[1], records
    )
    assert isinstance(told[0], TrialFinished)
    # Up to twice the slowest, 6 s: 0.5 ln(6000 / 1500), and 0.4 ln(6000 / 3000) more.
    assert told[0].hypervolume == pytest.approx(0.5 * math.log(4) + 0.4 * math.log(2))
    assert told[0].on_front and told[0].metric == "miou"


class Noting(NoListener):
    """Notes the trials of which the front was to be drawn."""

    def __init__(self) -> None:
        self.drawn = list[list[int]]()

    def front_changed(self, study: optuna.Study, records: Iterable[TrialRecord]) -> None:
        self.drawn.append([record.trial for record in records])


def test_a_front_without_members_is_shown_too_and_each_front_once(
    make_record: Callable[..., MeasuredTrial], tmp_path: Path
) -> None:
    records = [make_record(0, excess=0.2), make_record(1, excess=0.3), make_record(2), make_record(3, top1=0.1)]
    listener, ledger = Noting(), Ledger(tmp_path, budget=8)
    showing = Showing(Watchers(listener=listener), optuna.create_study(), ledger, RunSettings())
    for place, record in enumerate(records):
        ledger.records[record.trial] = record
        showing.finished(record, pareto_front(records[: place + 1]))
    assert listener.drawn == [[0], [0, 1, 2]]
