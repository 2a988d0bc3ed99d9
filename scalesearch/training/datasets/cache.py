"""Decoded or generated images kept on disk, so that workers and later runs do not make them again."""

import hashlib
import logging
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalesearch.training.datasets.npz_file import read_arrays

try:
    from fcntl import LOCK_EX, LOCK_NB, flock

    HAS_FLOCK = True
except ImportError:  # Windows
    HAS_FLOCK = False

Arrays = Mapping[str, NDArray[np.generic]]

# Older files go first once the folder holds more than this.
MAX_CACHE_BYTES = 8 * 10**9

_WRITING = ".writing-"
_YOUNG_S = 10.0
_OLD_S = 86400.0
_log = logging.getLogger(__name__)


def default_cache_folder() -> Path:
    """The user's cache folder for scalesearch: XDG_CACHE_HOME, or LOCALAPPDATA on Windows, or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "scalesearch"


def content_key(*parts: object) -> str:
    """A short hash that changes with any of the parts."""
    return hashlib.sha256("\n".join(repr(part) for part in parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def cached_arrays(
    folder: Path, name: str, make: Callable[[], Arrays], *, whole: Callable[[Arrays], None] = lambda _: None
) -> Arrays:
    """The arrays of the file `name`.npz in `folder`, or those that `make` gives, which are then kept there.

    A damaged file is made anew: the zip format checks every member, its comment says what it was made for, and `whole`
    raises (ValueError, KeyError, ...) where the arrays are not those that `make` would give. A folder that cannot be
    written costs time, not the run: it is logged and the arrays are returned all the same.
    """
    path = folder / f"{name}.npz"
    _remove_abandoned(folder)
    arrays = _read(path, name, whole)
    if arrays is None:
        arrays = make()
        try:
            _write(path, arrays)
            _drop_oldest(folder, keep=path)
        except OSError as error:
            _log.warning("cannot keep %s: %s; the images will be made again next time", path, error)
    return arrays


def require_splits(arrays: Arrays, sizes: Mapping[str, int | None], *, side_px: int, classes: int) -> None:
    """Raise ValueError or KeyError where a split's images and labels are not so many (None: any number), or unlike."""
    for split, size in sizes.items():
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        number = len(labels) if size is None else size
        fit = images.shape == (number, side_px, side_px, 3) and labels.shape == (number,) and number > 0
        if not fit or images.dtype != np.uint8 or labels.dtype != np.int64:
            msg = f"{split}: {images.shape} {images.dtype} images, {labels.shape} {labels.dtype} labels"
            raise ValueError(msg)
        numbers = labels.astype(np.int64)
        if numbers.min() < 0 or numbers.max() >= classes:
            msg = f"{split}: labels beyond {classes} classes"
            raise ValueError(msg)


def _read(path: Path, name: str, whole: Callable[[Arrays], None]) -> Arrays | None:
    try:
        arrays = read_arrays(path)
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
        os.utime(path)  # marks it as used lately, for _drop_oldest
    return arrays


def _write(path: Path, arrays: Arrays) -> None:
    """Whole or not at all: written under a temporary name, then renamed. Its zip comment is what it was made for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_WRITING, suffix=".npz")
    try:
        with os.fdopen(handle, "w+b") as stream:
            if HAS_FLOCK:
                flock(stream, LOCK_EX | LOCK_NB)  # says that its writer lives
            np.savez(stream, allow_pickle=False, **arrays)
            with zipfile.ZipFile(stream, "a") as archive:
                archive.comment = path.stem.encode()
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed left half written: nobody holds its lock."""
    for path in folder.glob(f"{_WRITING}*.npz"):
        # Without locks, and in the moment before its writer takes one, age must tell.
        with suppress(OSError):
            if time.time() - path.stat().st_mtime < (_YOUNG_S if HAS_FLOCK else _OLD_S):
                continue
            with path.open("rb") as stream:
                if HAS_FLOCK:
                    flock(stream, LOCK_EX | LOCK_NB)
                path.unlink()


def _drop_oldest(folder: Path, *, keep: Path) -> None:
    """Deletes what was used longest ago until the folder is within its bound; `keep` stays in any case."""
    with suppress(OSError):  # another process may have deleted one first
        files = sorted(
            (path for path in folder.glob("[!.]*.npz") if path != keep), key=lambda path: path.stat().st_mtime
        )
        excess = sum(path.stat().st_size for path in [*files, keep]) - MAX_CACHE_BYTES
        for path in files:
            if excess <= 0:
                return
            excess -= path.stat().st_size
            path.unlink()
