"""Ctrl-C and SIGTERM are the same: a flag while a search runs, so that it ends between two steps; else an interrupt."""

import contextlib
import signal
import threading
from collections.abc import Iterator


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

    By itself it would end the process on the spot. A handler of the calling program's own is left alone.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
