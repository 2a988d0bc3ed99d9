"""Moves a measurement to another core of the CPU where the one that it is on is disturbed.

Whoever shares a physical core with us (another virtual machine on its second hardware thread) slows down one core of
ours and not the next, for seconds or minutes: waiting does not help, moving does.
"""

import contextlib
import os
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def wandering(threads: int) -> Iterator[Callable[[], None] | None]:
    """Give a function that puts this thread onto the next of the cores that it may use, and undo that at the end.

    None where it could change nothing: one core, an engine of several threads (which are not this one), or a system
    that lets no program choose its cores (macOS, Windows).
    """
    if threads != 1 or not hasattr(os, "sched_setaffinity"):
        yield None
        return
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        yield None
        return
    order = sorted(allowed)
    place = 0

    def move() -> None:
        nonlocal place
        place = (place + 1) % len(order)
        # A container may take a core away meanwhile; then the thread stays where it is.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {order[place]})

    try:
        yield move
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, allowed)
