"""One process at a time trains the weights of a key."""

import multiprocessing
import os
import threading
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from scalesearch.chain.one_trainer import OneTrainer
from scalesearch.chain.stages import StageClock
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.measurement.lock_files import HAS_FLOCK

pytestmark = pytest.mark.skipif(not HAS_FLOCK, reason="this system has no flock, so nothing is locked")
HELD_S = 0.4
SPAWN = multiprocessing.get_context("spawn")


def hold(folder: Path, key: str, held: Event, leave: Event, die: bool) -> None:
    alone = OneTrainer(folder, DeviceLock("test", folder=folder))
    with alone(key, StageClock()):
        held.set()
        assert leave.wait(60)
        if die:
            os._exit(1)  # without any clean-up, like a killed process


def measure(folder: Path, done: Event) -> None:
    with DeviceLock("test", folder=folder, timeout_s=30.0).quiet():
        done.set()


@pytest.mark.parametrize("die", [False, True])
def test_a_key_is_waited_for_until_its_process_is_done_or_dead(tmp_path: Path, die: bool) -> None:
    held, leave = SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=hold, args=(tmp_path, "a", held, leave, die))
    process.start()
    assert held.wait(60)
    device = DeviceLock("test", folder=tmp_path)
    with device.busy():
        with OneTrainer(tmp_path, device)("b", StageClock()):
            assert device.paused_s < HELD_S
        threading.Timer(HELD_S, leave.set).start()
        began_s = time.monotonic()
        with OneTrainer(tmp_path, device)("a", StageClock()):
            waited_s = time.monotonic() - began_s
    process.join(60)
    assert leave.is_set() and waited_s >= HELD_S
    assert device.paused_s == pytest.approx(waited_s, abs=HELD_S / 2)
    assert not list(tmp_path.glob("a.lock"))


def test_a_measurement_runs_while_a_key_is_waited_for(tmp_path: Path) -> None:
    """Without that, trainer, measurement and waiter would wait for one another in a circle."""
    held, done = SPAWN.Event(), SPAWN.Event()
    holder = SPAWN.Process(target=hold, args=(tmp_path, "a", held, done, False))
    holder.start()
    assert held.wait(60)
    device = DeviceLock("test", folder=tmp_path)
    measuring = SPAWN.Process(target=measure, args=(tmp_path, done))
    with device.busy():
        measuring.start()
        with OneTrainer(tmp_path, device)("a", StageClock()):
            assert done.is_set()
    for process in (holder, measuring):
        process.join(60)
        assert process.exitcode == 0


def test_who_has_waited_keeps_later_ones_out(tmp_path: Path) -> None:
    """Parts of one training have one key: the third process must wait for the second, which waited for the first."""
    events = [(SPAWN.Event(), SPAWN.Event()) for _ in range(3)]
    processes = [SPAWN.Process(target=hold, args=(tmp_path, "a", *each, False)) for each in events]
    for process, (held, _) in zip(processes[:2], events[:2], strict=True):
        process.start()
        assert held.wait(60 if process is processes[0] else 2 * HELD_S) == (process is processes[0])
    events[0][1].set()
    assert events[1][0].wait(60)
    processes[2].start()
    assert not events[2][0].wait(5 * HELD_S), "the second still holds it"
    events[1][1].set()
    assert events[2][0].wait(60)
    events[2][1].set()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


def test_where_no_lock_file_can_be_made_nothing_is_locked(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file stands where the folder belongs")
    with OneTrainer(tmp_path / "weights", DeviceLock("test", folder=tmp_path))("a", StageClock()):
        pass
