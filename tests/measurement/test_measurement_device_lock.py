"""The lock between work and measurement, tried with real processes: entry, exclusion, death, nesting."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from scalesearch.errors import ConfigError, StageFailed
from scalesearch.measurement.device_lock import DeviceLock

SPAWN = multiprocessing.get_context("spawn")
PATIENCE_S = 30.0
"""Far above what any step here takes, so that only a real deadlock reaches it."""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="flock and SIGKILL are POSIX")


def train_until(stop: Event, folder: Path, steps: "Synchronized[int]", step_s: float) -> None:
    """A trainer: works in steps, and breathes after each."""
    lock = DeviceLock("cpu", folder=folder, timeout_s=PATIENCE_S)
    with lock.busy():
        while not stop.is_set():
            time.sleep(step_s)
            steps.value += 1
            lock.breathe()


def hold_until_killed(how: str, folder: Path, held: Event) -> None:
    with getattr(DeviceLock("cpu", folder=folder), how)():
        held.set()
        time.sleep(PATIENCE_S)


def enter_in_turn(
    how: str,
    folder: Path,
    ready: Barrier,
    inside: "Synchronized[int]",
    most: "Synchronized[int]",
    wrong: "Synchronized[int]",
) -> None:
    """Enter again and again, counting who else is inside: one unit per worker, a hundred per measurer."""
    lock = DeviceLock("cpu", folder=folder, timeout_s=PATIENCE_S)
    unit = 100 if how == "quiet" else 1
    ready.wait(PATIENCE_S)  # on a busy machine the first would be done before the last has started
    for _ in range(25):
        with getattr(lock, how)():
            with inside.get_lock():
                inside.value += unit
            time.sleep(0.002)
            with inside.get_lock():
                others = inside.value - unit
                wrong.value += others != 0 if how == "quiet" else others >= 100
                most.value = max(most.value, inside.value if how == "busy" else 0)
                inside.value -= unit


@contextmanager
def started(*children: multiprocessing.process.BaseProcess) -> Iterator[None]:
    for child in children:
        child.start()
    try:
        yield
    finally:
        for child in children:
            child.join(PATIENCE_S)
            assert child.exitcode is not None, "a child hangs"


def wait_for(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, "what the test waits for never came"
        time.sleep(0.005)


def refused_in_another_thread(folder: Path, how: str) -> bool:
    """Whether a second owner (another thread of this process) is kept out."""
    outcome: list[bool] = []

    def enter() -> None:
        try:
            with getattr(DeviceLock("cpu", folder=folder, timeout_s=0.05), how)():
                outcome.append(False)
        except StageFailed:
            outcome.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(PATIENCE_S)
    return outcome[0]


def test_a_measurer_gets_in_between_the_steps_of_two_trainers_and_they_stand_still_meanwhile(tmp_path: Path) -> None:
    stop = SPAWN.Event()
    counters = [SPAWN.Value("i", 0) for _ in range(2)]
    trainers = [SPAWN.Process(target=train_until, args=(stop, tmp_path, steps, 0.004)) for steps in counters]
    with started(*trainers):
        try:
            wait_for(lambda: all(steps.value > 3 for steps in counters))
            before = [steps.value for steps in counters]
            with DeviceLock("cpu", folder=tmp_path, timeout_s=PATIENCE_S).quiet():
                at_entry = [steps.value for steps in counters]
                time.sleep(0.1)
                at_exit = [steps.value for steps in counters]
            wait_for(lambda: all(now.value > then + 3 for now, then in zip(counters, at_exit, strict=True)))
        finally:
            stop.set()
    assert at_entry == at_exit
    assert all(entry - start < 50 for entry, start in zip(at_entry, before, strict=True))


def test_a_measurement_excludes_all_others_while_workers_share(tmp_path: Path) -> None:
    inside, most, wrong = (SPAWN.Value("i", 0) for _ in range(3))
    ways = ("quiet", "quiet", "busy", "busy", "busy")
    ready = SPAWN.Barrier(len(ways))
    children = [SPAWN.Process(target=enter_in_turn, args=(how, tmp_path, ready, inside, most, wrong)) for how in ways]
    with started(*children):
        pass
    assert [child.exitcode for child in children] == [0] * len(ways)
    assert wrong.value == 0
    assert most.value >= 2, "workers never overlapped, so the exclusion above was not put to the test"


@pytest.mark.parametrize("how", ["busy", "quiet"])
def test_a_killed_holder_frees_the_device(tmp_path: Path, how: str) -> None:
    held = SPAWN.Event()
    child = SPAWN.Process(target=hold_until_killed, args=(how, tmp_path, held))
    with started(child):
        try:
            assert held.wait(PATIENCE_S)
            with (
                pytest.raises(StageFailed, match=r"(?s)'cpu' within 0.05 s.*let that end") as refusal,
                DeviceLock("cpu", folder=tmp_path, timeout_s=0.05).quiet(),
            ):
                pass
            if Path("/proc/locks").exists() and "FLOCK" in Path("/proc/locks").read_text():
                assert f"process {child.pid}" in refusal.value.reason
        finally:
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
    with DeviceLock("cpu", folder=tmp_path, timeout_s=PATIENCE_S).quiet():
        pass


def test_a_forked_child_does_not_prolong_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    script = f"""
import os, sys, time
from pathlib import Path
from scalesearch.measurement.device_lock import DeviceLock
with DeviceLock("cpu", folder=Path({str(tmp_path)!r})).quiet():
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep({PATIENCE_S})
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child_pid = int(parent.stdout.readline())
    try:
        parent.kill()
        parent.wait(PATIENCE_S)
        with DeviceLock("cpu", folder=tmp_path, timeout_s=5.0).quiet():
            os.kill(child_pid, 0)  # raises if the child were gone, and with it the sense of this test
    finally:
        os.kill(child_pid, signal.SIGKILL)
        parent.stdout.close()


def test_quiet_inside_busy_takes_the_device_alone_and_gives_the_share_back(tmp_path: Path) -> None:
    with DeviceLock("cpu", folder=tmp_path, timeout_s=5.0).busy():
        assert not refused_in_another_thread(tmp_path, "busy")
        with DeviceLock("cpu", folder=tmp_path, timeout_s=5.0).quiet():
            assert refused_in_another_thread(tmp_path, "busy")
        assert refused_in_another_thread(tmp_path, "quiet")
        assert not refused_in_another_thread(tmp_path, "busy")
    assert not refused_in_another_thread(tmp_path, "quiet")


def test_two_workers_that_both_go_on_to_measure_do_not_block_each_other(tmp_path: Path) -> None:
    both_busy = threading.Barrier(2, timeout=PATIENCE_S)
    measured: list[int] = []

    def work_then_measure() -> None:
        lock = DeviceLock("cpu", folder=tmp_path, timeout_s=5.0)
        with lock.busy():
            both_busy.wait()
            with lock.quiet():
                measured.append(threading.get_ident())

    threads = [threading.Thread(target=work_then_measure) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(measured) == sorted(thread.ident or 0 for thread in threads)


def test_inner_entries_leave_the_outer_hold_as_it_is(tmp_path: Path) -> None:
    lock = DeviceLock("cpu", folder=tmp_path, timeout_s=5.0)
    with lock.quiet():
        with lock.busy(), lock.quiet():
            lock.breathe()
            assert refused_in_another_thread(tmp_path, "busy")
        assert refused_in_another_thread(tmp_path, "busy")
    with lock.busy():
        with lock.busy():
            pass
        assert refused_in_another_thread(tmp_path, "quiet")


def test_what_breathing_costs_is_counted(tmp_path: Path) -> None:
    """One thread works and breathes while another measures for a quarter of a second."""
    worker, measurer = (DeviceLock("cpu", folder=tmp_path, timeout_s=PATIENCE_S) for _ in range(2))
    waits, asked = threading.Event(), threading.Event()

    def measure() -> None:
        asked.set()
        with measurer.quiet():
            time.sleep(0.25)
        waits.set()

    thread = threading.Thread(target=measure)
    with worker.busy():
        worker.breathe()
        assert worker.paused_s == 0
        thread.start()
        asked.wait(PATIENCE_S)
        deadline_s = time.monotonic() + PATIENCE_S
        while not waits.is_set() and time.monotonic() < deadline_s:
            time.sleep(0.01)
            worker.breathe()
    thread.join(PATIENCE_S)
    assert waits.is_set()
    assert 0.2 < worker.paused_s < PATIENCE_S
    assert measurer.paused_s == 0


def test_an_error_inside_frees_the_device(tmp_path: Path) -> None:
    lock = DeviceLock("cpu", folder=tmp_path)
    for hold in (lock.busy, lock.quiet):
        with pytest.raises(KeyError), hold():
            raise KeyError
        assert not refused_in_another_thread(tmp_path, "quiet")


def test_devices_have_locks_of_their_own_and_breathing_outside_is_nothing(tmp_path: Path) -> None:
    DeviceLock("cpu", folder=tmp_path).breathe()
    assert list(tmp_path.iterdir()) == []
    with DeviceLock("cuda:0", folder=tmp_path).quiet():
        assert not refused_in_another_thread(tmp_path, "quiet")


def test_without_flock_it_warns_and_lets_everything_through(tmp_path: Path) -> None:
    script = f"""
import sys
sys.modules["fcntl"] = None  # what Windows looks like
from pathlib import Path
from scalesearch.measurement.device_lock import DeviceLock
lock = DeviceLock("cpu", folder=Path({str(tmp_path)!r}))
with lock.busy(), lock.quiet():
    lock.breathe()
print("went through")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "no file locks" in done.stderr
    assert "one worker" in done.stderr
    assert done.stdout == "went through\n"
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_say_what_was_expected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with pytest.raises(ConfigError, match="expected timeout_s above 0, got 0"):
        DeviceLock("cpu", timeout_s=0.0)
    with (
        pytest.raises(ConfigError, match=r"expected to open .*cpu\.turnstile\.lock for writing"),
        DeviceLock("cpu", folder=tmp_path / "missing").busy(),
    ):
        pass
    assert caplog.records == []


@pytest.mark.parametrize("kind", ["link to nowhere", "link to a folder", "file", "open folder"])
def test_a_lock_folder_that_another_user_may_have_put_there_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / f"scalesearch-{os.getuid()}"
    if kind.startswith("link"):
        place.symlink_to(tmp_path if kind.endswith("folder") else tmp_path / "nowhere")
    elif kind == "file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o777)
    monkeypatch.setattr("scalesearch.measurement.lock_files._TEMPORARY", tmp_path)
    with pytest.raises(ConfigError, match=r"expected .* to be a folder that you alone can write to"):
        DeviceLock("cpu")
