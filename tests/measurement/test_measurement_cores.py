"""A measurement may move to another core, and leaves the process as it was."""

import os

import pytest

from scalesearch.measurement.cores import wandering

needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores and Linux"
)


@needs_affinity
def test_every_allowed_core_is_visited_and_the_old_freedom_comes_back() -> None:
    before = os.sched_getaffinity(0)
    visited = set()
    with wandering(1) as move:
        assert move is not None
        assert os.sched_getaffinity(0) == before
        for _ in before:
            move()
            (here,) = os.sched_getaffinity(0)
            visited.add(here)
    assert visited == before
    assert os.sched_getaffinity(0) == before


@needs_affinity
def test_it_comes_back_after_an_error_too() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(ZeroDivisionError), wandering(1) as move:
        assert move is not None
        move()
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == before


def test_there_is_nowhere_to_go_for_several_threads_on_one_core_or_without_the_means(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with wandering(2) as move:
        assert move is None
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    with wandering(1) as move:
        assert move is None
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with wandering(1) as move:
        assert move is None
