"""What this process may use of the machine that it runs on: memory and cores."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_MOST_IMAGES: Final = 256
_MOST_PIXELS: Final = 2**24
"""Of a batch: 256 images of 256 x 256, of which a small segmentation network takes 0.7 GB."""


def images_at_once(height_px: int, width_px: int, *, most: int = _MOST_IMAGES) -> int:
    """Return how many images of this size are answered at once, so that large ones do not fill the memory.

    Args:
        height_px: Height of each image.
        width_px: Width of each image.
        most: How many they are where images are small.
    """
    return min(most, max(1, _MOST_PIXELS // (height_px * width_px)))


def available_bytes() -> int:
    """Return the free memory in bytes: the machine's, or the container's where that is less.

    Files that the system keeps in memory until it needs the room count as free.
    """
    import psutil

    available = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no such file: no container limit; "max": no limit set
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        available = min(available, limit - used + file_bytes(group / "memory.stat"))
    return max(available, 0)


def file_bytes(statistics: Path) -> int:
    """Return how many bytes of files a container keeps in memory and can free at once, or 0 if that is not known."""
    found = 0
    with suppress(OSError, ValueError):
        for line in statistics.read_text().splitlines():
            name, _, number = line.partition(" ")
            found += int(number) if name in ("active_file", "inactive_file") else 0
    return found


@contextmanager
def computing_threads(count: int) -> Iterator[None]:
    """Let the loaded libraries (torch, NumPy, SciPy) compute with so many threads inside the block.

    On a machine whose cores are all busy, threads of one computation wait for one another: with two of them, the
    dependency graph of EfficientNet-Lite0 took 8 s and more beside two busy processes, with one 0.5 s.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=count):
        yield


def usable_cores() -> int:
    """Return the number of physical cores that this process may run on, at least 1."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))
