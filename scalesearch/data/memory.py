"""Decide whether a data set is held in memory or on disk, and refuse one that fits into neither, before it is read."""

import shutil
from pathlib import Path

from scalesearch.errors import ConfigError
from scalesearch.host import available_bytes
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import MemorySetting

# Splitting copies the images once, and the smaller resolutions that are kept take as much memory again.
MAX_FRACTION = 0.5
# Above this share of the memory, images go to disk unless the settings say otherwise: every worker holds the data set,
# and the images that it trains on a second time.
ROOM_FRACTION = 0.25


def require_memory(*, images: int, size: InputSize, where: str, advice: str = "") -> None:
    """Raise an error if this many images of this size would take too much memory.

    Args:
        images: Number of images.
        size: Height and width of each image.
        where: The data set, for the message.
        advice: Another way out, for the message.

    Raises:
        ConfigError: If the images would take more than half of the memory that is available.
    """
    wanted = _size_bytes(images, size)
    available = available_bytes()
    if wanted > MAX_FRACTION * available:
        msg = (
            f"{where}: {images} images at {size} take {wanted / 1e9:.1f} GB, expected at most half of the "
            f"{available / 1e9:.1f} GB of memory available.\n"
            f"Use fewer images, or a space whose largest resolution is smaller{advice}."
        )
        raise ConfigError(msg)


def goes_to_disk(*, images: int, size: InputSize, where: str, memory: MemorySetting, file: Path) -> bool:
    """Tell whether images are to be read from a file on disk rather than held in memory.

    With "auto" they are if they would take more than a quarter of the memory available. If the disk lacks room for
    them, but half of the memory does not, they are held in memory.

    Args:
        images: Number of images.
        size: Height and width of each image.
        where: The data set, for messages.
        memory: What the settings say.
        file: The file; if it is there already, it needs no more room.

    Raises:
        ConfigError: If the images fit neither into memory nor onto the disk, or not to where the settings force them.
    """
    if memory == "ram":
        require_memory(images=images, size=size, where=where, advice=", or let them be on disk: --set data.memory=auto")
        return False
    wanted = _size_bytes(images, size)
    if memory == "auto" and fits_beside(wanted):
        return False
    free = _free_bytes(file.parent)
    if file.exists() or free >= wanted:
        return True
    if memory == "auto" and wanted <= MAX_FRACTION * available_bytes():
        return False
    raise no_room(where, file.parent, wanted=wanted, free=free)


def no_room(where: str, folder: Path, *, wanted: int, free: int) -> ConfigError:
    """Return the error that the disk lacks room for a file of `wanted` bytes."""
    return ConfigError(
        f"{where}: expected {wanted / 1e9:.2f} GB of free disk in {folder} for its images, which are too many for the "
        f"memory or are sent there by data.memory.\n"
        f"Came: {free / 1e9:.2f} GB free.\n"
        f"Make room there, set XDG_CACHE_HOME to a folder on a larger disk, use fewer images, or a space whose largest "
        f"resolution is smaller."
    )


def not_written(where: str, file: Path, error: OSError) -> ConfigError:
    """Return the error that the file of images could not be written, which may be because the disk became full."""
    return ConfigError(
        f"{where}: expected to write its images to {file}, since they are too many for the memory or are sent there by "
        f"data.memory.\n"
        f"Came: {error.strerror or error}.\n"
        f"Make room there, set XDG_CACHE_HOME to a folder that can be written, or use fewer images."
    )


def room_bytes() -> int:
    """Return how many bytes images may take: a quarter of the memory that is available now."""
    return int(ROOM_FRACTION * available_bytes())


def fits_beside(size_bytes: int) -> bool:
    """Tell whether images of this many bytes take no more than `room_bytes`."""
    return size_bytes <= room_bytes()


def disk_note(*, images: int, size: InputSize, where: str, memory: MemorySetting, file: Path) -> str:
    """Return the line that tells the user that the images are on disk, where, and how to have them in memory."""
    taken = f"{images} images at {size} take {_size_bytes(images, size) / 1e9:.1f} GB"
    if memory == "disk":
        return f"{where}: {taken} and are read from {file}, as data.memory says"
    return (
        f"{where}: {taken}, more than a quarter of the memory available, so they are read from {file} "
        "(--set data.memory=ram for memory)"
    )


def _size_bytes(images: int, size: InputSize) -> int:
    return images * size.pixels * 3


def _free_bytes(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
