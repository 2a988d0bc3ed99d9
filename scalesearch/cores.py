"""How many cores this process may use."""

import os


def usable_cores() -> int:
    """Return the number of physical cores that this process may run on, at least 1."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))
