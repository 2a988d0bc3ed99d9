"""Lets one process at a time train weights that several workers need, so that the others find them stored."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from scalesearch.chain.stages import StageClock
from scalesearch.errors import ConfigError
from scalesearch.folder_lock import is_at
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.measurement.lock_files import HAS_FLOCK, open_lock_file, release, try_lock

_POLL_S: Final = 0.05


class OneTrainer:
    """A lock for each key of weights: its holder looks for the weights and, if absent, trains and stores them.

    The kernel frees the lock of a process that dies. A waiting process lets measurements run, as a training one does;
    the time that it waits is added to the device lock's `paused_s`. Nothing is locked where the system has no
    `flock` (Windows; two workers may train the same weights at once) or where no lock file can be made: a study on a
    read-only disk, in which no process can store weights.
    """

    def __init__(self, folder: Path, device: DeviceLock) -> None:
        """Store where the lock files are made, and the device's lock.

        Args:
            folder: Folder of the weights, in which the lock files are made too; it is created if absent.
            device: The lock by which measurements make trainings wait.
        """
        self._folder, self._device = folder, device

    @contextmanager
    def __call__(self, key: str, stages: StageClock) -> Iterator[None]:
        """Wait until no other process trains the weights of this key, and keep all others from it inside the block.

        Args:
            key: Key of the weights.
            stages: Announces the stage `wait` while there is something to wait for.
        """
        path = self._folder / f"{key}.lock"
        descriptor = self._locked(path, stages)
        try:
            yield
        finally:
            if descriptor >= 0:
                with suppress(OSError):  # waiting processes have the file open, and open the next one
                    path.unlink()
                release(descriptor)
                os.close(descriptor)

    def _locked(self, path: Path, stages: StageClock) -> int:
        """Return the descriptor of the locked file at this path, made where absent; -1 if none can be made."""
        while True:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                descriptor = open_lock_file(path) if HAS_FLOCK else -1
            except (OSError, ConfigError):
                descriptor = -1
            if descriptor < 0:
                return -1
            try:
                self._wait(descriptor, stages)
            except BaseException:
                os.close(descriptor)
                raise
            if is_at(descriptor, path):
                return descriptor
            os.close(descriptor)  # its holder removed it: a third process may hold the file that is there now

    def _wait(self, descriptor: int, stages: StageClock) -> None:
        if try_lock(descriptor, alone=True):
            return
        began_s, paused_before_s = time.monotonic(), self._device.paused_s
        with stages.waiting():
            while not try_lock(descriptor, alone=True):
                self._device.breathe()
                time.sleep(_POLL_S)
        paused_s = self._device.paused_s - paused_before_s  # added by `breathe` already
        self._device.paused_s += max(0.0, time.monotonic() - began_s - paused_s)
