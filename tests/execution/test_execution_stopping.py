"""Signals: a flag in a search, an interrupt outside of it, and the caller's own handlers back afterwards."""

import os
import signal
from collections.abc import Iterator

import pytest

from scalesearch.execution.stopping import interrupted_by_sigterm, stop_signals


@pytest.fixture(autouse=True)
def default() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A shell's background job, as under nohup, ignores Ctrl-C from its start.
    interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)
    signal.signal(signal.SIGINT, interrupted)


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_error_that_a_library_makes_of_the_interrupt_is_an_interrupt_again(number: signal.Signals) -> None:
    """As NumPy and torch do where the signal comes while they are loaded."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupted_by_sigterm():
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        except KeyboardInterrupt:
            raise ImportError("initialization failed")  # noqa: B904
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_without_a_signal_stays_what_it_is() -> None:
    with pytest.raises(ImportError), interrupted_by_sigterm():
        raise ImportError
