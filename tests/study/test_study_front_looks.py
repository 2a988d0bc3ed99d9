"""What goes wrong when a front is looked at once more costs these looks alone: the search is over."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from scalesearch.errors import ConfigError, MissingBackendError, ScalesearchError, StageFailed
from scalesearch.execution.child_process import ChildLost, ChildStopped
from scalesearch.records.front_scores import read_front_scores
from scalesearch.study import front_looks
from scalesearch.study.front_looks import FrontLooks
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session

TRACEBACK = 'Traceback (most recent call last):\n  File "quality.py", line 1, in score\nMemoryError: no room for 9 GB\n'


@pytest.fixture
def looks(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrontLooks:
    monkeypatch.setattr(front_looks, "installed", lambda: True)
    monkeypatch.setattr(front_looks, "stored_histograms", lambda _: {})
    return FrontLooks(tmp_path, session, threading.Event())


def failing(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError(TRACEBACK), "MemoryError: no room for 9 GB"),
        (ChildLost("died"), "died"),
        (StageFailed("engine", "does not open"), "engine: does not open"),
    ],
)
def test_whatever_a_look_fails_by_is_logged_in_short(
    error: Exception,
    told: str,
    looks: FrontLooks,
    tmp_path: Path,
    make_record: Callable[..., MeasuredTrial],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(front_looks, "run_apart", failing(error))
    looks.score((make_record(0),))
    looks.draw((make_record(0),), lambda _: None)
    assert read_front_scores(tmp_path) == ()
    assert [record.getMessage() for record in caplog.records] == [
        f"the front could not be scored on the test images: {told}",
        f"the front could not be looked at: {told}",
    ]


def test_a_stop_is_no_failure(
    looks: FrontLooks, make_record: Callable[..., MeasuredTrial], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_looks, "run_apart", failing(ChildStopped()))
    with pytest.raises(ChildStopped):
        looks.score((make_record(0),))


@pytest.mark.parametrize("error", [ConfigError("it is locked by another program"), MissingBackendError("no driver")])
def test_a_database_that_cannot_be_read_costs_the_histograms_alone(
    error: ScalesearchError,
    looks: FrontLooks,
    make_record: Callable[..., MeasuredTrial],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(front_looks, "stored_histograms", failing(error))
    monkeypatch.setattr(front_looks, "run_apart", failing(AssertionError("nothing is to be drawn")))
    looks.draw((make_record(0),), lambda _: None)
    assert [record.getMessage() for record in caplog.records] == [f"histograms of the front were not made: {error}"]
