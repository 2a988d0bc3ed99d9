"""The files of a device's lock: where they are, how they are opened and locked, and which processes hold them."""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from scalesearch.errors import ConfigError

try:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock

    HAS_FLOCK = True
except ImportError:  # Windows: see `device_lock.DeviceLock`
    HAS_FLOCK = False

_TEMPORARY = Path("/tmp")


def try_lock(descriptor: int, *, alone: bool) -> bool:
    """Try to take the lock, alone or shared, without waiting; tell whether it is now held."""
    try:
        flock(descriptor, (LOCK_EX if alone else LOCK_SH) | LOCK_NB)
    except BlockingIOError:
        return False
    return True


def release(descriptor: int) -> None:
    """Unlock, unless the descriptor is one that a forked child inherited (-1)."""
    if descriptor >= 0:
        flock(descriptor, LOCK_UN)


def open_lock_file(path: Path) -> int:
    """Return a descriptor of the lock file.

    The file is made if needed, and marked as in use so that cleaners of temporary folders leave it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        os.utime(path)
    except OSError as error:
        msg = (
            f"device lock: expected to open {path} for writing, got {error.strerror}; check the folder's owner and mode"
        )
        raise ConfigError(msg) from error
    return descriptor


def user_folder() -> Path:
    """Return this user's own folder of lock files, the same for every process even if TMPDIR differs."""
    if os.name != "posix":
        return Path(tempfile.gettempdir())
    folder = _TEMPORARY / f"scalesearch-{os.getuid()}"
    with suppress(FileExistsError):  # also a broken link, which another user may have put there; refused below
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        msg = f"device lock: expected {folder} to be a folder that you alone can write to; remove it and run again"
        raise ConfigError(msg)
    return folder


def holders_of(path: Path) -> str:
    """Return the processes that hold the lock, as " (process 12, 34)", if Linux tells; used for messages only."""
    try:
        inode = path.stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ""
    # "1: FLOCK ADVISORY WRITE 12345 08:01:678 0 EOF"; lines with "->" are waiting processes.
    rows = [line.split() for line in lines if "FLOCK" in line and "->" not in line]
    pids = sorted({row[4] for row in rows if len(row) > 5 and row[5].rpartition(":")[2] == str(inode)})
    return f" (process {', '.join(pids)})" if pids else ""
