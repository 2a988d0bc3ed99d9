"""A lock per device for all processes of this user on this machine: work shares it, a measurement holds it alone.

Two lock files make a readers-writer lock with a turnstile. A process that works (trains, exports, quantizes) holds
`work` shared; a process that measures holds `turnstile` and `work` exclusively. No process starts or continues working
while the turnstile is taken, so a measurement waits only for one training step, however many trainers there are. The
kernel releases the locks of a process that dies. Waiting is done by polling, since `flock` has no time limit.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scalesearch.errors import ConfigError, StageFailed
from scalesearch.measurement.lock_files import (
    HAS_FLOCK,
    holders_of,
    open_lock_file,
    release,
    try_lock,
    user_folder,
)

LOG = logging.getLogger(__name__)
STAGE = "device lock"

DEFAULT_TIMEOUT_S = 240.0
"""For single processes. Workers of a study wait longer, since many of them may measure in turn (`chain.evaluate`)."""
LOOK_EVERY_S = 0.002
"""Shortest time between two checks of the turnstile by `breathe`. It keeps the checks cheap, and keeps those of busy
loops from delaying a measurement that waits for the turnstile.
"""
POLL_S = (0.0005, 0.02)
"""First and longest pause in seconds between two tries; the longest is long enough not to disturb a measurement."""


MEASURED_DEVICE = "cpu"
"""The lock that training and measuring share on every device, since training on a GPU keeps the CPU busy too."""


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

    Where the system has no `flock` (Windows) nothing is locked, and a warning says so. There, use one worker
    and one run at a time.
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
        """Total seconds waited in `breathe`, and for weights that another process trains (`OneTrainer`)."""
        self._stem = (folder or user_folder()) / re.sub(r"[^A-Za-z0-9]+", "_", device_name)
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
                release(hold.work)

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
        if try_lock(hold.turnstile, alone=False):
            release(hold.turnstile)
            return
        release(hold.work)
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
                release(hold.work)
            try:
                self._take_alone(hold)
                hold.quiet = True
                yield
            finally:
                hold.quiet = False
                release(hold.work)
                release(hold.turnstile)
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
        hold = _Hold(turnstile=open_lock_file(self._path("turnstile")), work=open_lock_file(self._path("work")))
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
        self._take(hold.turnstile, deadline_s, "turnstile", alone=False)
        try:
            self._take(hold.work, deadline_s, "work", alone=False)
        finally:
            release(hold.turnstile)

    def _take_alone(self, hold: _Hold) -> None:
        deadline_s = time.monotonic() + self.timeout_s
        self._take(hold.turnstile, deadline_s, "turnstile", alone=True)
        self._take(hold.work, deadline_s, "work", alone=True)

    def _take(self, descriptor: int, deadline_s: float, file: str, *, alone: bool) -> None:
        pause_s, longest_s = POLL_S
        while not try_lock(descriptor, alone=alone):
            if time.monotonic() >= deadline_s:
                awaited = "a measurement to end" if file == "turnstile" else "training and other work to pause"
                reason = (
                    f"expected {awaited} on {self.device_name!r} within {self.timeout_s:g} s, but it goes on"
                    f"{holders_of(self._path(file))}; let that end, or end it, and run again"
                )
                raise StageFailed(STAGE, reason)
            time.sleep(pause_s)
            pause_s = min(1.3 * pause_s, longest_s)

    def _path(self, file: str) -> Path:
        return self._stem.with_name(f"{self._stem.name}.{file}.lock")
