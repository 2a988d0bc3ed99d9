"""Move a measurement to another core of the CPU when its current core is disturbed.

Another user of the same physical core (such as another virtual machine on its second hardware thread) slows down one of
our cores and not the next, for seconds or minutes. Waiting does not help then, but moving to another core does.
"""

import contextlib
import os
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def wandering(threads: int) -> Iterator[Callable[[], None] | None]:
    """Yield a function that moves this thread to the next of its allowed cores; the cores are restored at the end.

    The value is None where moving would change nothing: with a single core, with an engine of several threads (which
    are not this thread), or on a system where programs cannot choose their cores (macOS, Windows).

    Args:
        threads: Number of threads of the engine.
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
        # A container may have taken the core away meanwhile; then the thread stays where it is.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {order[place]})

    try:
        yield move
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, allowed)
