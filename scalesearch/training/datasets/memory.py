"""The guard that refuses a data set which would not fit into memory, before it is read."""

from scalesearch.errors import ConfigError
from scalesearch.memory import available_bytes

# Splitting copies once, and the resolutions that are kept take as much again.
MAX_FRACTION = 0.5


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
