"""The guard that refuses a data set which would not fit into memory, before it is read."""

from contextlib import suppress
from pathlib import Path

from scalesearch.errors import ConfigError

# Splitting copies once, and the resolutions that are kept take as much again.
MAX_FRACTION = 0.5


def available_bytes() -> int:
    """Memory that this process may still take: the machine's, or the container's where that is less."""
    import psutil

    available = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no such file: no container limit; "max": none set
        limit = int((group / "memory.max").read_text())
        available = min(available, limit - int((group / "memory.current").read_text()))
    return max(available, 0)


def require_memory(*, images: int, side_px: int, where: str) -> None:
    """Passes, or stops.

    Raises:
        ConfigError: if the images would take more than half of the memory that is available.
    """
    wanted = images * side_px * side_px * 3
    available = available_bytes()
    if wanted > MAX_FRACTION * available:
        msg = (
            f"{where}: {images} images at {side_px} px take {wanted / 1e9:.1f} GB, expected at most half of the "
            f"{available / 1e9:.1f} GB of memory available.\n"
            f"Use fewer images, or a space whose largest resolution is smaller."
        )
        raise ConfigError(msg)
