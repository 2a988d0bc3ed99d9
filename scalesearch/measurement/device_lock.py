"""A lock per device for all processes of this user on this machine: work shares it, a measurement holds it alone.

Two lock files make a readers-writer lock with a turnstile. A process that works (trains, exports, quantizes) holds
`work` shared; a process that measures holds `turnstile` and `work` exclusively. No process starts or continues working
while the turnstile is taken, so a measurement waits only for one training step, however many trainers there are. The
kernel releases the locks of a process that dies. Waiting is done by polling, since `flock` has no time limit.
"""

import logging
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from scalesearch.errors import ConfigError, StageFailed

try:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock

    HAS_FLOCK = True
except ImportError:  # Windows: see DeviceLock
    HAS_FLOCK = False

LOG = logging.getLogger(__name__)
STAGE = "device lock"
_TEMPORARY = Path("/tmp")

DEFAULT_TIMEOUT_S = 240.0
"""Below the 300 s after which a stage counts as hung, so that the stage fails with this reason and is not killed."""
LOOK_EVERY_S = 0.002
"""Shortest time between two looks of `breathe` at the turnstile. It makes them cheap, and keeps the looks of busy loops
from holding up a measurement that waits for the turnstile.
"""
POLL_S = (0.0005, 0.02)
"""First and longest pause between two tries; the longest is long enough that waiting does not disturb a measurement."""


MEASURED_DEVICE = "cpu"
"""The lock that training and measuring share, whatever they run on: training on a GPU keeps the CPU busy too."""


@dataclass(slots=True)
class _Hold:
    """What one thread holds of one device: two open file descriptors and a mode.

    A descriptor of -1 was inherited by a fork and is not ours.
    """

    turnstile: int
    work: int
    busy: bool = False
    quiet: bool = False
    looked_s: float = 0.0


@dataclass(slots=True)
class _Holds:
    """All holds of this process. They are kept per process, not per DeviceLock, because the kernel's locks are too."""

    by_owner: dict[tuple[int, Path], _Hold] = field(default_factory=dict)

    def forget_in_child(self) -> None:
        """Close what a forked child inherited, without unlocking it.

        Otherwise the child would keep its parent's locks for as long as it lives.
        """
        for hold in self.by_owner.values():
            os.close(hold.turnstile)
            os.close(hold.work)
            hold.turnstile = hold.work = -1
        self.by_owner.clear()


_HOLDS = _Holds()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_HOLDS.forget_in_child)


class DeviceLock:
    """The lock of one device ("cpu", "cuda:0").

    Objects with the same name share one lock, and a thread may nest its holds:

    * `busy()` inside `busy()` or `quiet()`, and `quiet()` inside `quiet()`, have no further effect.
    * `quiet()` inside `busy()` first gives up this thread's own share and takes it again at its end.
    * Child processes inherit no hold; they take their own.

    Where the system has no `flock` (Windows) nothing is locked, and a warning says so. There, one worker and no other
    run at the same time have the same effect.
    """

    def __init__(self, device_name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S, folder: Path | None = None) -> None:
        """Name the lock, without opening anything yet.

        Args:
            device_name: Such as "cpu" or "cuda:0".
            timeout_s: How long to wait for others, in seconds.
            folder: Where the lock's files are; by default a folder per user.

        Raises:
            ConfigError: `timeout_s` is not above 0, or others can write to the user's folder of lock files.
        """
        if timeout_s <= 0:
            msg = f"device lock: expected timeout_s above 0, got {timeout_s:g}"
            raise ConfigError(msg)
        self.device_name = device_name
        self.timeout_s = timeout_s
        self.paused_s = 0.0
        """Total time in seconds that `breathe` has made its callers wait for measurements of others."""
        self._stem = (folder or _user_folder()) / re.sub(r"[^A-Za-z0-9]+", "_", device_name)
        if not HAS_FLOCK:
            LOG.warning(
                "this system has no file locks (fcntl.flock), so nothing keeps other work off %r while it is timed: "
                "use one worker, and one run at a time",
                device_name,
            )

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Share the device with other work; the block begins when nobody measures or waits to measure.

        Raises:
            StageFailed: A measurement did not end within `timeout_s`.
        """
        with self._hold() as hold:
            if hold is None or hold.busy or hold.quiet:
                yield
                return
            self._share(hold)
            hold.busy = True
            try:
                yield
            finally:
                hold.busy = False
                _release(hold.work)

    def breathe(self) -> None:
        """Let a waiting measurement run, and return after it.

        This takes microseconds if none waits, and has no effect outside `busy()`.

        Raises:
            StageFailed: The measurement did not end within `timeout_s`.
        """
        hold = _HOLDS.by_owner.get((threading.get_ident(), self._stem))
        if hold is None or hold.quiet:
            return
        now_s = time.monotonic()
        if now_s - hold.looked_s < LOOK_EVERY_S:
            return
        hold.looked_s = now_s
        if _try(hold.turnstile, LOCK_SH):
            _release(hold.turnstile)
            return
        _release(hold.work)
        try:
            self._share(hold)
        finally:
            self.paused_s += time.monotonic() - now_s

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Hold the device alone: no other work of ours runs on it inside the block.

        Raises:
            StageFailed: Other work did not pause within `timeout_s`; or, at the end, a share that was given up for this
                could not be taken again within that time.
        """
        with self._hold() as hold:
            if hold is None or hold.quiet:
                yield
                return
            if hold.busy:
                _release(hold.work)
            try:
                self._take_alone(hold)
                hold.quiet = True
                yield
            finally:
                hold.quiet = False
                _release(hold.work)
                _release(hold.turnstile)
                if hold.busy and hold.work >= 0:
                    self._share(hold)

    @contextmanager
    def _hold(self) -> Iterator[_Hold | None]:
        """Yield this thread's hold, made at the outermost entry and closed at its end; None without `flock`."""
        owner = (threading.get_ident(), self._stem)
        if not HAS_FLOCK or owner in _HOLDS.by_owner:
            yield _HOLDS.by_owner.get(owner)
            return
        # Opened anew at every outermost entry: if a cleaner of temporary files deletes a lock file, all processes soon
        # use the same file again.
        hold = _Hold(turnstile=_open(self._path("turnstile")), work=_open(self._path("work")))
        _HOLDS.by_owner[owner] = hold
        try:
            yield hold
        finally:
            if hold.work >= 0:
                del _HOLDS.by_owner[owner]
                os.close(hold.turnstile)
                os.close(hold.work)

    def _share(self, hold: _Hold) -> None:
        deadline_s = time.monotonic() + self.timeout_s
        self._take(hold.turnstile, LOCK_SH, deadline_s, "turnstile")
        try:
            self._take(hold.work, LOCK_SH, deadline_s, "work")
        finally:
            _release(hold.turnstile)

    def _take_alone(self, hold: _Hold) -> None:
        deadline_s = time.monotonic() + self.timeout_s
        self._take(hold.turnstile, LOCK_EX, deadline_s, "turnstile")
        self._take(hold.work, LOCK_EX, deadline_s, "work")

    def _take(self, descriptor: int, mode: int, deadline_s: float, file: str) -> None:
        pause_s, longest_s = POLL_S
        while not _try(descriptor, mode):
            if time.monotonic() >= deadline_s:
                awaited = "a measurement to end" if file == "turnstile" else "training and other work to pause"
                reason = (
                    f"expected {awaited} on {self.device_name!r} within {self.timeout_s:g} s, but it goes on"
                    f"{_holders(self._path(file))}; let that end, or end it, and run again"
                )
                raise StageFailed(STAGE, reason)
            time.sleep(pause_s)
            pause_s = min(1.3 * pause_s, longest_s)

    def _path(self, file: str) -> Path:
        return self._stem.with_name(f"{self._stem.name}.{file}.lock")


def _try(descriptor: int, mode: int) -> bool:
    """Try to take the lock without waiting, and tell whether it is now held."""
    try:
        flock(descriptor, mode | LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _release(descriptor: int) -> None:
    """Unlock, unless the descriptor is one that a forked child inherited (-1)."""
    if descriptor >= 0:
        flock(descriptor, LOCK_UN)


def _open(path: Path) -> int:
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


def _user_folder() -> Path:
    """Return this user's own folder of lock files, the same for every process, whatever TMPDIR or the session says."""
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


def _holders(path: Path) -> str:
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
