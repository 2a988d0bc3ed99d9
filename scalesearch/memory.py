"""How much memory this process may still take."""

from contextlib import suppress
from pathlib import Path


def available_bytes() -> int:
    """Memory that is free: the machine's, or the container's where that is less."""
    import psutil

    available = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no such file: no container limit; "max": none set
        limit = int((group / "memory.max").read_text())
        available = min(available, limit - int((group / "memory.current").read_text()))
    return max(available, 0)
