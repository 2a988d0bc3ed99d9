"""Ctrl-C and SIGTERM are the same: a flag while a search runs, so that it ends between two steps; else an interrupt."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """A flag that the first SIGINT or SIGTERM sets; the second one acts as always."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]

    def restore() -> None:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

    def stop(_number: int, _frame: object) -> None:
        stopped.set()
        restore()

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        restore()


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Have SIGTERM raise KeyboardInterrupt, so that children are ended and files put in order on the way out.

    By itself it would end the process on the spot. A native library that is being loaded turns the interrupt into an
    ImportError or SystemError of its own; so whatever error leaves the block after a signal is an interrupt again, for
    SIGINT as well. Handlers of the calling program's own are left alone.
    """
    usual: dict[signal.Signals, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    ours = threading.current_thread() is threading.main_thread()
    taken = [number for number, handler in usual.items() if ours and signal.getsignal(number) is handler]
    interrupted = threading.Event()

    def interrupt(_number: int, _frame: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    except Exception as error:
        if interrupted.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        for number in taken:
            signal.signal(number, usual[number])
