"""Signals: a flag in a search, an interrupt outside of it, and the caller's own handlers back afterwards."""

import os
import signal
from collections.abc import Iterator

import pytest

from scalesearch.search.stopping import interrupted_by_sigterm, stop_signals


@pytest.fixture(autouse=True)
def default() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_is_an_interrupt_and_in_a_search_a_flag() -> None:
    with interrupted_by_sigterm():
        with stop_signals() as stopped:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopped.wait(5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_second_one_ends_a_search_that_does_not_end() -> None:
    with interrupted_by_sigterm(), pytest.raises(KeyboardInterrupt), stop_signals() as stopped:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped.wait(5)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()


def test_a_handler_of_the_calling_program_is_left_alone() -> None:
    heard = list[int]()
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    with interrupted_by_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]
