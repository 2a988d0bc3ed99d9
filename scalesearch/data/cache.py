"""A cache on disk for decoded or generated images, so that workers and later runs need not make them again."""

import hashlib
import logging
import math
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from scalesearch.data.npz_file import read_arrays
from scalesearch.values.network_spec import InputSize

try:
    from fcntl import LOCK_EX, LOCK_NB, flock

    HAS_FLOCK = True
except ImportError:  # Windows
    HAS_FLOCK = False

Arrays = Mapping[str, NDArray[np.generic]]
Put = Callable[[NDArray[np.uint8]], None]
"""A function that takes the next image to be stored."""

# Once the folder holds more than this, the files used longest ago are deleted first.
MAX_CACHE_BYTES = 8 * 10**9

_WRITING = ".writing-"
_YOUNG_S = 10.0
_OLD_S = 86400.0
_log = logging.getLogger(__name__)


def default_cache_folder() -> Path:
    """Return scalesearch's cache folder, below XDG_CACHE_HOME, LOCALAPPDATA (Windows) or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "scalesearch"


def content_key(*parts: object) -> str:
    """Return a short hash that changes whenever any of the parts changes."""
    return hashlib.sha256("\n".join(repr(part) for part in parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def cached_arrays(
    folder: Path, name: str, make: Callable[[], Arrays], *, whole: Callable[[Arrays], None] = lambda _: None
) -> Arrays:
    """Return the arrays of the file `name`.npz in `folder`; if it is not there, call `make` and keep what it gives.

    A damaged file is made again. Three checks find damage: the checksums that the zip format keeps for every member,
    the zip comment, which holds the name that the file was made for, and `whole`.

    If the folder cannot be written, this costs time but does not stop the run: the problem is logged and the arrays are
    returned all the same.

    Args:
        folder: The cache folder.
        name: Name of the file, without the suffix.
        make: Makes the arrays.
        whole: Raises an error (ValueError, KeyError, ...) if the stored arrays are not what `make` would give.
    """
    path = cache_file(folder, name)
    _remove_abandoned(folder)
    arrays = _read(path, name, whole)
    if arrays is None:
        arrays = make()
        try:
            with _new_archive(path) as archive:
                _add_arrays(archive, arrays)
            _drop_oldest(folder, keep=path)
        except OSError as error:
            _log.warning("cannot keep %s: %s; the images will be made again next time", path, error)
    return arrays


def mapped_arrays(
    folder: Path,
    name: str,
    make: Callable[[Put], Arrays],
    *,
    rows: str,
    shape: tuple[int, ...],
    whole: Callable[[Arrays], None] = lambda _: None,
) -> Arrays:
    """Return the arrays of the file `name`.npz in `folder` as `cached_arrays` does, with one of them left on disk.

    `cached_arrays` and this function read one another's files. The array that is left on disk is mapped; it is made row
    by row, so it is never in memory as a whole.

    Args:
        folder: The cache folder.
        name: Name of the file, without the suffix.
        make: Is given a function that takes the next row, and returns the other arrays. Rows that it does not give
            become zeros.
        rows: Name of the array that stays on disk.
        shape: Its shape; its type is uint8.
        whole: Raises an error (ValueError, KeyError, ...) if the stored arrays are not what `make` would give.

    Raises:
        OSError: If the file cannot be written, e.g. because the disk is full.
    """
    path = cache_file(folder, name)
    _remove_abandoned(folder)
    arrays = _read(path, name, whole, mapped=(rows,))
    if arrays is not None:
        return arrays
    with _new_archive(path) as archive:
        with archive.open(f"{rows}.npy", "w", force_zip64=True) as member:
            npy.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": shape})
            given = 0

            def put(row: NDArray[np.uint8]) -> None:
                nonlocal given
                member.write(np.ascontiguousarray(row).data)
                given += 1

            others = make(put)
            empty = bytes(math.prod(shape[1:]))
            for _ in range(shape[0] - given):
                member.write(empty)
        _add_arrays(archive, others)
    _drop_oldest(folder, keep=path)
    arrays = _read(path, name, whole, mapped=(rows,))
    if arrays is None:
        msg = f"{path} was written, but is gone or damaged"
        raise OSError(msg)
    return arrays


def cache_file(folder: Path, name: str) -> Path:
    """Return the path of a file of the cache."""
    return folder / f"{name}.npz"


def require_splits(arrays: Arrays, numbers: Mapping[str, int | None], *, size: InputSize, classes: int) -> None:
    """Check the number, shape, type and labels of stored images.

    Args:
        arrays: For each split, `SPLIT_images` of shape (number, height, width, 3) in uint8, and `SPLIT_labels` of
            shape (number,) in int64.
        numbers: The expected number of images of each split; None allows any number above 0.
        size: The expected size of the images.
        classes: How many classes there are; labels must be from 0 to `classes` - 1.

    Raises:
        KeyError: If an array is missing.
        ValueError: If an array is not as described.
    """
    for split, expected in numbers.items():
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        number = len(labels) if expected is None else expected
        fit = images.shape == (number, *size.sides, 3) and labels.shape == (number,) and number > 0
        if not fit or images.dtype != np.uint8 or labels.dtype != np.int64:
            msg = f"{split}: {images.shape} {images.dtype} images, {labels.shape} {labels.dtype} labels"
            raise ValueError(msg)
        indices = labels.astype(np.int64)
        if indices.min() < 0 or indices.max() >= classes:
            msg = f"{split}: labels beyond {classes} classes"
            raise ValueError(msg)


def _read(path: Path, name: str, whole: Callable[[Arrays], None], *, mapped: tuple[str, ...] = ()) -> Arrays | None:
    try:
        arrays = read_arrays(path, mapped=mapped)
        with zipfile.ZipFile(path) as archive:
            if archive.comment != name.encode():
                raise ValueError("it was not made for these images")  # noqa: EM101
        whole(arrays)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        _log.warning("%s is damaged (%s) and is made anew", path, reason)
        return None
    with suppress(OSError):
        os.utime(path)  # marks the file as recently used, for _drop_oldest
    return arrays


@contextmanager
def _new_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Write the file completely or not at all: under a temporary name first, which is then renamed.

    The zip comment holds the name that the file was made for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_WRITING, suffix=".npz")
    try:
        with os.fdopen(handle, "w+b") as stream:
            if HAS_FLOCK:
                flock(stream, LOCK_EX | LOCK_NB)  # shows others that the writer is still running
            with zipfile.ZipFile(stream, "w") as archive:
                yield archive
                archive.comment = path.stem.encode()
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _add_arrays(archive: zipfile.ZipFile, arrays: Arrays) -> None:
    """Add arrays as `numpy.savez` does."""
    for name, array in arrays.items():
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            npy.write_array(member, array, allow_pickle=False)


def _remove_abandoned(folder: Path) -> None:
    """Remove half-written files of processes that were killed; no process holds the lock of such a file."""
    for path in folder.glob(f"{_WRITING}*.npz"):
        # The age decides where there are no locks, and in the moment before the writer has taken its lock.
        with suppress(OSError):
            if time.time() - path.stat().st_mtime < (_YOUNG_S if HAS_FLOCK else _OLD_S):
                continue
            with path.open("rb") as stream:
                if HAS_FLOCK:
                    flock(stream, LOCK_EX | LOCK_NB)
                path.unlink()


def _drop_oldest(folder: Path, *, keep: Path) -> None:
    """Delete the files used longest ago until the folder is within its size limit; never delete `keep`.

    The largest file does not count if it takes more than half of the limit alone: a set that is too large for memory
    would else be deleted whenever another one is kept.
    """
    with suppress(OSError):  # another process may have deleted one first
        files = sorted(
            (path for path in folder.glob("[!.]*.npz") if path != keep), key=lambda path: path.stat().st_mtime
        )
        sizes = [path.stat().st_size for path in [*files, keep]]
        excess = sum(sizes) - MAX_CACHE_BYTES - (max(sizes) if max(sizes) > MAX_CACHE_BYTES / 2 else 0)
        for path in files:
            if excess <= 0:
                return
            excess -= path.stat().st_size
            path.unlink()
